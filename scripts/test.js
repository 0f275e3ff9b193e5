'use strict';
// npm test: builds what is stale, then runs every test on every backend of this machine (dist/test/run.js).
const { spawnSync } = require('node:child_process');
const { join } = require('node:path');
const { buildObstacle } = require('./toolchain');

const root = join(__dirname, '..');

function run(script, ...args) {
  const { status } = spawnSync(process.execPath, [script, ...args], {
    cwd: root,
    stdio: 'inherit',
  });
  if (status !== 0) process.exit(status ?? 1);
}

run(join(__dirname, 'build.js'));
const obstacle = buildObstacle();
if (obstacle === null)
  run(require.resolve('cmake-js/bin/cmake-js'), 'build', '--log-level', 'warn');
else console.error(`gqa: native addon not rebuilt (${obstacle})`);
run(join(root, 'dist', 'test', 'run.js'), ...process.argv.slice(2));
