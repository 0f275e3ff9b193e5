'use strict';
// Tests run as compiled by `npm run build`; `npm test` runs them once per backend (test/run.ts).
const { mkdtempSync, rmSync } = require('node:fs');
const { tmpdir } = require('node:os');
const { join } = require('node:path');

// No test writes to the home folder of whoever runs it.
if (process.env.GQA_CACHE_DIR === undefined) {
  const folder = mkdtempSync(join(tmpdir(), 'gqa-test-weights-'));
  process.env.GQA_CACHE_DIR = folder;
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
}

module.exports = {
  rootDir: 'dist',
  testEnvironment: 'node',
  testMatch: ['<rootDir>/test/**/*.test.js'],
};
