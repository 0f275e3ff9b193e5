import js from '@eslint/js';
import tseslint from 'typescript-eslint';
import layers from './scripts/lint/layers.js';

const BROWSER_GLOBALS = [
  ...['document', 'window', 'localStorage', 'fetch', 'performance', 'console', 'matchMedia'],
  ...['AbortController', 'TextDecoder', 'setInterval', 'setTimeout', 'clearTimeout'],
  ...['requestAnimationFrame', 'navigator'],
];
const NODE_GLOBALS = ['require', 'module', '__dirname', 'process', 'console'];
const PAGE_GLOBALS = [
  'AbortController',
  'FormData',
  'TextDecoder',
  'document',
  'fetch',
  'performance',
  'sessionStorage',
  'setTimeout',
];

function off(...names) {
  return Object.fromEntries(names.map((name) => [`@typescript-eslint/${name}`, 'off']));
}

export default tseslint.config(
  { ignores: ['build*/', 'dist*/', 'prebuilds/', 'coverage/', '.cache/'] },
  js.configs.recommended,
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.recommendedTypeChecked, tseslint.configs.stylistic],
    languageOptions: {
      parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname },
    },
    rules: {
      eqeqeq: 'error',
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/no-non-null-assertion': 'off',
      '@typescript-eslint/switch-exhaustiveness-check': [
        'error',
        { considerDefaultExhaustiveForUnions: true },
      ],
      '@typescript-eslint/restrict-template-expressions': [
        'error',
        { allowArray: true, allowBoolean: true, allowNumber: true },
      ],
      // `for` over an index is how numeric code reads.
      '@typescript-eslint/prefer-for-of': 'off',
    },
  },
  {
    // Goldens and reports are JSON: their shape is what the tests check. A getter that must throw is an expression alone.
    files: ['test/**/*.ts'],
    rules: off(
      'no-unsafe-argument',
      'no-unsafe-assignment',
      'no-unsafe-call',
      'no-unsafe-member-access',
      'no-unsafe-return',
      'no-require-imports',
      'no-unused-expressions',
      'unbound-method',
    ),
  },
  {
    // What counts there is that it compiles, or does not.
    files: ['test/types/**/*.ts'],
    rules: off('no-unused-vars'),
  },
  {
    files: ['lib/**/*.ts'],
    plugins: { gqa: layers },
    rules: {
      'gqa/layers': 'error',
      'max-lines': ['error', { max: 300, skipBlankLines: true, skipComments: true }],
      'max-lines-per-function': ['error', { max: 60, skipBlankLines: true, skipComments: true }],
    },
  },
  {
    files: ['**/*.js', '**/*.mjs'],
    languageOptions: {
      globals: Object.fromEntries(NODE_GLOBALS.map((name) => [name, 'readonly'])),
    },
  },
  { files: ['**/*.js'], languageOptions: { sourceType: 'commonjs' } },
  {
    // What browsers run.
    files: ['lib/server/page/*.js'],
    languageOptions: {
      sourceType: 'module',
      globals: Object.fromEntries(PAGE_GLOBALS.map((name) => [name, 'readonly'])),
    },
  },
  {
    files: ['lib/server/page/*.js'],
    languageOptions: {
      sourceType: 'module',
      globals: Object.fromEntries(BROWSER_GLOBALS.map((name) => [name, 'readonly'])),
    },
  },
);
