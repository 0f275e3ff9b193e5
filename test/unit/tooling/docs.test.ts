/** README.md and docs/ keep up with the code: every error code, every link, every environment variable. */
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { packageRoot } from '../../../lib/backend/package-root';

const root = packageRoot();
const readme = readFileSync(join(root, 'README.md'), 'utf8');

function filesBelow(folder: string, extension: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith(extension))
    .map((file) => join(root, folder, file));
}

test('README.md lists the error codes of lib/core/errors.ts, in the same order', () => {
  const source = readFileSync(join(root, 'lib/core/errors.ts'), 'utf8');
  const union = source.slice(0, source.indexOf(';', source.indexOf('type GqaErrorCode')));
  const codes = Array.from(union.matchAll(/\| '([A-Z_]+)'/g), (match) => match[1]);
  const documented = Array.from(
    readme.matchAll(/^\| `([A-Z]+(?:_[A-Z]+)*)` +\|/gm),
    (match) => match[1],
  );
  expect(codes.length).toBeGreaterThan(20);
  expect(documented).toEqual(codes);
});

test('README.md names every environment variable that the code reads', () => {
  const sources = [...filesBelow('lib', '.ts'), ...filesBelow('native', '.cc')];
  const text = sources.map((file) => readFileSync(file, 'utf8')).join('\n');
  const reads = text.matchAll(/\benv\.(GQA_\w+)|getenv\("(GQA_\w+)"\)/g);
  const variables = new Set(Array.from(reads, (match) => match[1] ?? match[2]));
  expect(variables.size).toBeGreaterThan(2);
  for (const name of variables) expect(readme).toContain(`\`${name}`);
});

test.each(['README.md', ...filesBelow('docs', '.md').map((file) => relative(root, file))])(
  'links of %s lead somewhere',
  (file) => {
    const text = readFileSync(join(root, file), 'utf8');
    const links = Array.from(text.matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g), (match) => match[1]);
    const broken = links.filter((link) => !existsSync(join(root, dirname(file), link)));
    expect(broken).toEqual([]);
  },
);
