'use strict';
// Tests run as compiled by `npm run build`; `npm test` runs them once per backend (test/run.ts).
module.exports = {
  rootDir: 'dist',
  testEnvironment: 'node',
  testMatch: ['<rootDir>/test/**/*.test.js'],
};
