/** The slots of the parameter block, and the columns of a step's plan, are listed twice, in C++ and in TypeScript: the lists must be the same. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../../lib/backend/package-root';

/** 'attend_slot' and 'AttendSlot' alike become 'attendslot'; members in order, "name=value" where a value is given. */
function lists(file: string, pattern: RegExp): Map<string, string[]> {
  const text = readFileSync(join(packageRoot(), file), 'utf8').replace(/\/\/.*|\/\*[^]*?\*\//g, '');
  const found = new Map<string, string[]>();
  for (const [, name, body] of text.matchAll(pattern)) {
    const members = body.split(',').map((member) => member.replace(/\s/g, ''));
    found.set(
      name.replace(/_/g, '').toLowerCase(),
      members.filter((member) => member !== ''),
    );
  }
  return found;
}

const enums = /const enum (\w+) {([^}]*)}/g;
const typescript = new Map([
  ...lists('lib/backend/parameters.ts', enums),
  ...lists('lib/backend/contract-cache.ts', enums),
]);
const native = lists('native/binding/parameters.h', /namespace (\w+) {\s*enum : int {([^}]*)}/g);

test('both files list the same enumerations', () => {
  expect(typescript.size).toBeGreaterThan(5);
  expect(native).toEqual(typescript);
});

test('the block has room for the longest list, and both versions agree', () => {
  const header = readFileSync(join(packageRoot(), 'native/binding/parameters.h'), 'utf8');
  const source = readFileSync(join(packageRoot(), 'lib/backend/parameters.ts'), 'utf8');
  const count = Number(/kParameterCount = (\d+)/.exec(header)?.[1]);
  const longest = Math.max(...[...native.values()].map((members) => members.length));
  expect(count).toBeGreaterThanOrEqual(longest + 2);
  expect(/kParameterVersion = (\d+)/.exec(header)?.[1]).toBe(
    /PARAMETER_VERSION = (\d+)/.exec(source)?.[1],
  );
});
