'use strict';
// Compiles TypeScript into dist/ (CommonJS) and writes the thin ES module beside it. Both give the same classes: the
// module only re-exports what the CommonJS file holds. Does nothing where dist/ is newer than every source.
const { spawnSync } = require('node:child_process');
const {
  chmodSync,
  cpSync,
  existsSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} = require('node:fs');
const { join } = require('node:path');

const root = join(__dirname, '..');
const compiledLibrary = join(root, 'dist', 'lib');
const SOURCES = ['lib', 'test', 'bench', 'tsconfig.json', 'scripts/build.js'];
/** Written last. */
const MODULE_TYPES = join(compiledLibrary, 'index.d.mts');
const HEADER = '// Written by scripts/build.js.\n';

/** The last change at or below a path. A folder changes when a file in it goes. */
function lastChange(path) {
  const stat = statSync(path);
  if (!stat.isDirectory()) return stat.mtimeMs;
  return readdirSync(path).reduce(
    (latest, name) => Math.max(latest, lastChange(join(path, name))),
    stat.mtimeMs,
  );
}

function isFresh() {
  if (!existsSync(MODULE_TYPES)) return false;
  const built = statSync(MODULE_TYPES).mtimeMs;
  return SOURCES.every((source) => lastChange(join(root, source)) < built);
}

function compile() {
  // A test whose source is gone must not go on running.
  rmSync(join(root, 'dist'), { recursive: true, force: true });
  const tsc = require.resolve('typescript/bin/tsc');
  const { status } = spawnSync(process.execPath, [tsc, '-p', root], { stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
}

function writeModule() {
  const names = Object.keys(require(join(compiledLibrary, 'index.js'))).sort();
  const exports = names.map((name) => `export const ${name} = gqa.${name};\n`).join('');
  writeFileSync(
    join(compiledLibrary, 'index.mjs'),
    `${HEADER}import gqa from './index.js';\n\n${exports}`,
  );
  writeFileSync(MODULE_TYPES, `${HEADER}export * from './index.js';\n`);
}

/** The chat page is served as it is written. */
function copyPage() {
  const page = join('lib', 'server', 'page');
  cpSync(join(root, page), join(root, 'dist', page), { recursive: true });
}

if (!isFresh()) {
  compile();
  copyPage();
  chmodSync(join(compiledLibrary, 'cli', 'main.js'), 0o755);
  writeModule();
}
