#!/usr/bin/env node
'use strict';
// prebuildify calls this in place of node-gyp: `rebuild --target=V --devdir=D --arch=A --release`.
const { spawnSync } = require('node:child_process');
const { join } = require('node:path');

const arch = process.argv.find((a) => a.startsWith('--arch='))?.slice('--arch='.length);
const args = ['rebuild', '--arch', arch ?? process.arch];
const { status } = spawnSync(
  process.execPath,
  [require.resolve('cmake-js/bin/cmake-js'), ...args],
  {
    cwd: join(__dirname, '..'),
    stdio: 'inherit',
  },
);
process.exitCode = status ?? 1;
