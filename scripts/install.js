'use strict';
// The install step: a binary that loads is kept, else one is built, else the JS backend serves. Never fails the install.
const { spawnSync } = require('node:child_process');
const { join } = require('node:path');
const { buildObstacle } = require('./toolchain');

const root = join(__dirname, '..');
const BUILD_LIMIT_MS = 15 * 60_000;
const LOAD_LIMIT_MS = 30_000;

function say(message) {
  process.stderr.write(`gqa: ${message}\n`);
}

/** Loads in a child process: a binary for another system can do worse than throw. */
function binaryLoads() {
  const program = `require('node-gyp-build')(process.argv[1])`;
  const child = spawnSync(process.execPath, ['-e', program, root], {
    cwd: root,
    stdio: 'ignore',
    timeout: LOAD_LIMIT_MS,
  });
  return child.status === 0;
}

function build() {
  const verbose = process.env.npm_config_loglevel === 'verbose';
  const child = spawnSync(process.execPath, [require.resolve('cmake-js/bin/cmake-js'), 'compile'], {
    cwd: root,
    stdio: verbose ? 'inherit' : 'ignore',
    timeout: BUILD_LIMIT_MS,
  });
  return child.status === 0;
}

function main() {
  if (binaryLoads()) return;
  const obstacle = buildObstacle();
  if (obstacle !== null) {
    say(`cannot build the native addon (${obstacle}); the JS backend will be used`);
  } else if (!build() || !binaryLoads()) {
    say(
      `building the native addon failed; the JS backend will be used (to see why: cd ${root} && npx cmake-js compile)`,
    );
  }
}

try {
  main();
} catch (error) {
  say(`install step stopped (${error.message}); the JS backend will be used`);
}
