/**
 * The examples of README.md run as they stand: each fenced ts, js, mjs or cjs block in a folder where `gqa` is an
 * installed package. A block that begins with the comment `// not run: <why>` is shown, not executed.
 */
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compiledRoot, nodeCommand } from './support/child';
import { packageRoot, skipped } from './support/package';

interface Example {
  language: string;
  line: number;
  source: string;
}

const FENCE = /^```(\w*)\n([\s\S]*?)^```$/gm;
const EXTENSION: Record<string, string> = {
  ts: 'mts',
  typescript: 'mts',
  js: 'mjs',
  javascript: 'mjs',
  mjs: 'mjs',
  cjs: 'cjs',
};

function readExamples(): Example[] {
  const path = join(packageRoot, 'README.md');
  if (!existsSync(path)) return [];
  const text = readFileSync(path, 'utf8').replaceAll('\r\n', '\n');
  return Array.from(text.matchAll(FENCE), (match) => ({
    language: match[1],
    line: text.slice(0, match.index).split('\n').length,
    source: match[2],
  })).filter(({ language, source }) => language in EXTENSION && !source.startsWith('// not run:'));
}

let folder: string;

/** `gqa` as a package that points at this compiled tree, with the real package's entry points. */
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'gqa-readme-'));
  const installed = join(folder, 'node_modules/gqa');
  mkdirSync(join(folder, 'node_modules/@types'), { recursive: true });
  symlinkSync(
    join(packageRoot, 'node_modules/@types/node'),
    join(folder, 'node_modules/@types/node'),
  );
  mkdirSync(installed);
  symlinkSync(join(packageRoot, 'package.json'), join(installed, 'package.json'));
  symlinkSync(compiledRoot, join(installed, 'dist'));
  for (const name of ['models', 'build', 'prebuilds', 'node_modules', 'scripts']) {
    if (existsSync(join(packageRoot, name)))
      symlinkSync(join(packageRoot, name), join(installed, name));
  }
});
afterAll(() => rmSync(folder, { recursive: true }));

function run(file: string, ...flags: string[]): string {
  const [command, ...prefix] = nodeCommand();
  const result = spawnSync(command, [...prefix, ...flags, file], {
    cwd: folder,
    encoding: 'utf8',
    timeout: 300_000,
  });
  if (result.status !== 0)
    throw new Error(`${file} ended with ${result.status ?? result.signal}\n${result.stderr}`);
  return result.stdout;
}

/** Checks a TypeScript file against the package's declarations, and leaves the JavaScript beside it. */
function compile(file: string): string {
  const flags = [
    '--module',
    'node16',
    '--moduleResolution',
    'node16',
    '--target',
    'es2022',
    '--strict',
  ];
  flags.push('--lib', 'es2022,esnext.disposable', '--types', 'node', '--skipLibCheck');
  const tsc = require.resolve('typescript/bin/tsc');
  const result = spawnSync(process.execPath, [tsc, ...flags, file], {
    cwd: folder,
    encoding: 'utf8',
  });
  if (result.status !== 0) throw new Error(`${file} does not compile:\n${result.stdout}`);
  return file.replace(/\.mts$/, '.mjs').replace(/\.cts$/, '.cjs');
}

function execute(name: string, language: string, source: string): string {
  const extension = EXTENSION[language];
  const file = `${name}.${extension}`;
  writeFileSync(join(folder, file), source);
  return run(extension === 'mts' ? compile(file) : file);
}

const examples = readExamples();
const each = examples.length === 0 ? skipped('README.md has no examples') : test;
each.each(examples.length === 0 ? [{ language: '', line: 0, source: '' }] : examples)(
  'README.md, line $line ($language)',
  ({ language, line, source }) => {
    execute(`line-${line}`, language, source);
  },
  400_000,
);

const USE = `
const x = Tensor.from([1, 2, 3, 4], [1, 2, 1, 2]);
console.log(attention(x, x, x, { causal: true }).shape.join());
`;

describe('the package resolves', () => {
  test('from ECMAScript modules', () => {
    expect(execute('esm', 'mjs', `import { attention, Tensor } from 'gqa';${USE}`)).toBe(
      '1,2,1,2\n',
    );
  });
  test('from CommonJS', () => {
    expect(execute('commonjs', 'cjs', `const { attention, Tensor } = require('gqa');${USE}`)).toBe(
      '1,2,1,2\n',
    );
  });
  test('from TypeScript', () => {
    expect(execute('typescript', 'ts', `import { attention, Tensor } from 'gqa';${USE}`)).toBe(
      '1,2,1,2\n',
    );
  }, 60_000);
  test('as one set of classes both ways', () => {
    const source = `
import { createRequire } from 'node:module';
import { GqaError, KvCache, Tensor } from 'gqa';
const other = createRequire(import.meta.url)('gqa');
console.log(other.Tensor === Tensor, other.KvCache === KvCache, other.GqaError === GqaError);
`;
    expect(execute('both', 'mjs', source)).toBe('true true true\n');
  });
});
