'use strict';
// npm run lint: every check of layout, layers and style. --fix formats instead of checking (npm run format).
const { spawnSync } = require('node:child_process');
const { readdirSync } = require('node:fs');
const { join } = require('node:path');
const { checkIncludes } = require('./lint/native-layers');
const { checkLeaks } = require('./lint/template-leak');

const root = join(__dirname, '..');
const fix = process.argv.includes('--fix');
let failed = false;

/** Runs a tool; says so where it is not installed, so that a skipped check is seen. */
function tool(name, command, args) {
  console.log(`== ${name}`);
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: 'inherit' });
  if (error?.code === 'ENOENT') console.log(`${command} not found, skipped`);
  else if (status !== 0) failed = true;
}

function node(name, bin, args) {
  tool(name, process.execPath, [require.resolve(bin), ...args]);
}

function problems(name, found) {
  console.log(`== ${name}`);
  for (const problem of found) console.log(problem);
  if (found.length > 0) failed = true;
}

function nativeFiles() {
  return ['native', 'test/native'].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true })
      .filter((file) => /\.(cc|h)$/.test(file))
      .map((file) => join(folder, file)),
  );
}

const eslint = join(root, 'node_modules', 'eslint', 'bin', 'eslint.js');
node('eslint', eslint, ['.', ...(fix ? ['--fix'] : [])]);
node('prettier', 'prettier/bin/prettier.cjs', [
  '.',
  fix ? '--write' : '--check',
  '--log-level=warn',
]);
tool('clang-format', 'clang-format', [
  ...(fix ? ['-i'] : ['--dry-run', '-Werror']),
  ...nativeFiles(),
]);
problems('native layers', checkIncludes(root));
problems('template leak', checkLeaks(root));
process.exitCode = failed ? 1 : 0;
