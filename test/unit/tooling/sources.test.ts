/** native/sources.gypi is the one list of what is compiled: strict JSON, every file once, no file forgotten. */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../../lib/backend/package-root';

const root = packageRoot();

test('native/sources.gypi lists every source file once', () => {
  const { variables } = JSON.parse(readFileSync(join(root, 'native/sources.gypi'), 'utf8')) as {
    variables: Record<string, string[]>;
  };
  const listed = Object.entries(variables)
    .filter(([key]) => key.endsWith('_sources'))
    .flatMap(([, files]) => files);
  const present = readdirSync(join(root, 'native'), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.cc'))
    .map((file) => `native/${file}`);
  expect(listed.sort()).toEqual(present.sort());
});
