'use strict';
// The include rules of native/: binding -> runtime -> ops.h; targets -> kernels -> simd -> ops.h. Where the two meet,
// runtime/dispatch.cc knows the targets' tables by name.
const { readFileSync, readdirSync } = require('node:fs');
const { join, posix } = require('node:path');

const CONTRACT = ['ops.h', 'ops_linear.h', 'ops_training.h', 'layout.h'];
/** Folder -> folders or files of native/ that it may include, besides its own. */
const MAY_INCLUDE = {
  binding: ['runtime', ...CONTRACT],
  runtime: ['targets/tables.h', ...CONTRACT],
  targets: ['kernels', 'simd', ...CONTRACT],
  kernels: ['simd', ...CONTRACT],
  simd: CONTRACT,
  'ops.h': ['ops_linear.h'],
  'ops_linear.h': ['layout.h'],
  'ops_training.h': ['ops.h'],
  'layout.h': [],
};
/** Files that flags for an instruction set reach: what they instantiate could run on a CPU that lacks it. */
const FLAGGED = ['targets', 'kernels', 'simd'];
/** Standard headers without containers, algorithms or other templates with external linkage. */
const PLAIN_HEADERS = /^(c[a-z]+|[a-z0-9]*intrin\.h|arm_[a-z0-9]+\.h|type_traits|limits)$/;
const NODE_API = /^(napi|node_api|uv)/;

function layerOf(path) {
  return path.split('/')[0];
}

/** The problems of one file; `path` and the includes are relative to native/. */
function checkFile(path, source) {
  const problems = [];
  const layer = layerOf(path);
  for (const [, local, system] of source.matchAll(/^\s*#\s*include\s+(?:"([^"]+)"|<([^>]+)>)/gm)) {
    if (local !== undefined) {
      const target = posix.join(posix.dirname(path), local);
      const allowed = [layer, ...(MAY_INCLUDE[layer] ?? [])];
      if (!allowed.includes(layerOf(target)) && !allowed.includes(target)) {
        problems.push(`native/${path}: ${layer} must not include ${target}`);
      }
    } else if (NODE_API.test(system) && layer !== 'binding') {
      problems.push(`native/${path}: only binding/ may include <${system}>`);
    } else if (FLAGGED.includes(layer) && !PLAIN_HEADERS.test(system)) {
      problems.push(`native/${path}: <${system}> may leak templates from an instruction-set file`);
    }
  }
  return problems;
}

function checkIncludes(root) {
  const native = join(root, 'native');
  return readdirSync(native, { recursive: true })
    .map((file) => file.replaceAll('\\', '/'))
    .filter((file) => /\.(cc|h)$/.test(file))
    .flatMap((file) => checkFile(file, readFileSync(join(native, file), 'utf8')));
}

module.exports = { checkFile, checkIncludes };
