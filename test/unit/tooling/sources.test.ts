/** The lists of what is compiled: strict JSON, every file once, no file forgotten. */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../../lib/backend/package-root';
import { vectorTargets } from '../../conformance/targets';

const root = packageRoot();

const { variables } = JSON.parse(readFileSync(join(root, 'native/sources.gypi'), 'utf8')) as {
  variables: Record<string, string[]>;
};
const targets = ['x64', 'arm64'].map((arch) => [...vectorTargets(arch).keys()]);

test('native/sources.gypi and native/targets/*.gyp list every source file once', () => {
  const listed = [
    ...Object.keys(variables).flatMap((key) => (key.endsWith('_sources') ? variables[key] : [])),
    ...['scalar', ...targets.flat()].map((target) => `native/targets/${target}.cc`),
  ];
  const present = readdirSync(join(root, 'native'), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.cc'))
    .map((file) => `native/${file}`);
  expect(listed.sort()).toEqual(present.sort());
});

test('what is built for each architecture is what dispatch can choose, best first', () => {
  const tables = readFileSync(join(root, 'native/targets/tables.h'), 'utf8');
  const rows = Array.from(tables.matchAll(/^#define GQA_TARGETS(.*\\\n)*.*/gm), ([list]) =>
    Array.from(list.matchAll(/target\((\w+), /g), (row) => row[1]),
  );
  const expected = [...targets, []].map((names) => ['scalar', ...names].reverse());
  expect(rows).toEqual(expected);
});
