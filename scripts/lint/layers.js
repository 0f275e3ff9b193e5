'use strict';
// The import rules of lib/, as an ESLint rule:
// cli -> server, toolkit -> engine -> model -> nn -> attention, kv-cache -> backend -> core; format -> core.
const { posix } = require('node:path');

const BELOW_ATTENTION = ['backend', 'core'];
const BELOW_NN = ['attention', 'kv-cache', ...BELOW_ATTENTION];
const BELOW_MODEL = ['nn', 'format', ...BELOW_NN];

/** Layer -> what it may import besides itself. index.ts states the public exports; no file imports it. */
const MAY_IMPORT = {
  core: [],
  format: ['core'],
  backend: ['core'],
  'kv-cache': BELOW_ATTENTION,
  attention: ['kv-cache', ...BELOW_ATTENTION],
  nn: BELOW_NN,
  model: BELOW_MODEL,
  toolkit: ['model', ...BELOW_MODEL],
  engine: ['model', ...BELOW_MODEL],
  server: ['engine', 'model', ...BELOW_MODEL],
  cli: ['server', 'engine', 'model', 'toolkit', ...BELOW_MODEL],
  index: ['server', 'engine', 'model', 'toolkit', ...BELOW_MODEL],
};
const ADDON_LOADER = 'backend/native';
const ADDON = /^node-gyp-build$|\.node$/;

/** 'lib/kv-cache/arena.ts' -> 'kv-cache', 'lib/attention.ts' -> 'attention'. */
function layerOf(pathInLib) {
  return pathInLib.split('/')[0].replace(/\.ts$/, '');
}

/** The problem of importing `source` in the file at `pathInLib`; null where it is allowed. */
function importProblem(pathInLib, source) {
  if (ADDON.test(source)) {
    const allowed = pathInLib.replace(/\.ts$/, '') === ADDON_LOADER;
    return allowed ? null : `only lib/${ADDON_LOADER}.ts may load the addon`;
  }
  if (!source.startsWith('.')) return null;
  const from = layerOf(pathInLib);
  const target = posix.join(posix.dirname(pathInLib), source);
  if (target.startsWith('..')) return `lib must not import ${source}, outside lib`;
  const to = target === '.' ? 'index' : layerOf(target);
  if (to === from || (MAY_IMPORT[from] ?? []).includes(to)) return null;
  return `${from} must not import ${to}`;
}

const layers = {
  meta: { type: 'problem', schema: [], messages: { layer: '{{problem}}' } },
  create(context) {
    const file = context.filename.replaceAll('\\', '/');
    const pathInLib = file.slice(file.lastIndexOf('/lib/') + '/lib/'.length);
    function check(node, source) {
      if (typeof source?.value !== 'string') return;
      const problem = importProblem(pathInLib, source.value);
      if (problem !== null) context.report({ node, messageId: 'layer', data: { problem } });
    }
    return {
      ImportDeclaration: (node) => check(node, node.source),
      ExportNamedDeclaration: (node) => check(node, node.source),
      ExportAllDeclaration: (node) => check(node, node.source),
      ImportExpression: (node) => check(node, node.source),
      TSImportType: (node) => check(node, node.source ?? node.argument?.literal),
      CallExpression(node) {
        if (node.callee.name === 'require') check(node, node.arguments[0]);
      },
    };
  },
};

module.exports = { importProblem, rules: { layers } };
