'use strict';
// Compiles TypeScript into dist/ (CommonJS) and writes the thin ES module beside it. Both give the same classes: the
// module only re-exports what the CommonJS file holds.
const { spawnSync } = require('node:child_process');
const { chmodSync, rmSync, writeFileSync } = require('node:fs');
const { join } = require('node:path');

const root = join(__dirname, '..');
const compiledLibrary = join(root, 'dist', 'lib');
const HEADER = '// Written by scripts/build.js.\n';

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
  writeFileSync(join(compiledLibrary, 'index.d.mts'), `${HEADER}export * from './index.js';\n`);
}

compile();
writeModule();
chmodSync(join(compiledLibrary, 'cli', 'main.js'), 0o755);
