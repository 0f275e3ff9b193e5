/** The layer checks of `npm run lint`, on sources that break each rule. */
import { join } from 'node:path';
import { packageRoot } from '../../../lib/backend/package-root';

function script<T>(name: string): T {
  return require(join(packageRoot(), 'scripts', 'lint', name)) as T;
}

const { importProblem } = script<{
  importProblem(pathInLib: string, source: string): string | null;
}>('layers.js');
const { checkFile } = script<{ checkFile(path: string, source: string): string[] }>(
  'native-layers.js',
);
const { sharedSymbols } = script<{ sharedSymbols(nmOutput: string): string[] }>('template-leak.js');

describe('imports of lib/', () => {
  test.each([
    ['attention.ts', './backend'],
    ['attention.ts', './kv-cache/kv-cache'],
    ['kv-cache/arena.ts', '../core/errors'],
    ['nn/linear.ts', '../attention'],
    ['format/gguf.ts', '../core/errors'],
    ['model/load.ts', '../format/gguf'],
    ['model/arch/llama.ts', '../../nn/linear'],
    ['cli/commands/generate.ts', '../../model/load'],
    ['index.ts', './model/load'],
    ['backend/native.ts', 'node-gyp-build'],
    ['core/errors.ts', 'node:fs'],
  ])('%s may import %s', (file, source) => {
    expect(importProblem(file, source)).toBeNull();
  });

  test.each([
    ['core/tensor.ts', '../backend', 'core must not import backend'],
    ['backend/index.ts', '../kv-cache/arena', 'backend must not import kv-cache'],
    ['kv-cache/arena.ts', '../attention', 'kv-cache must not import attention'],
    ['attention.ts', './nn/linear', 'attention must not import nn'],
    ['nn/linear.ts', '../model/types', 'nn must not import model'],
    ['format/gguf.ts', '../model/types', 'format must not import model'],
    ['model/load.ts', '../cli/main', 'model must not import cli'],
    ['model/load.ts', '..', 'model must not import index'],
    ['nn/linear.ts', '../../test/oracle', 'lib must not import ../../test/oracle, outside lib'],
    ['model/load.ts', 'node-gyp-build', 'only lib/backend/native.ts may load the addon'],
    [
      'backend/index.ts',
      '../../build/Release/gqa.node',
      'only lib/backend/native.ts may load the addon',
    ],
  ])('%s must not import %s', (file, source, problem) => {
    expect(importProblem(file, source)).toBe(problem);
  });
});

describe('includes of native/', () => {
  test.each([
    ['binding/addon.cc', '#include <napi.h>\n#include "../runtime/runtime.h"\n#include "../ops.h"'],
    ['runtime/attend.cc', '#include <vector>\n#include "runtime.h"'],
    ['runtime/dispatch.cc', '#include "../targets/tables.h"'],
    ['targets/avx2.cc', '#include "../simd/avx2.h"\n#include "../kernels/attend.h"'],
    ['simd/avx2.h', '#include <immintrin.h>\n#include <cstdint>\n#include "../ops.h"'],
  ])('%s is fine', (file, source) => {
    expect(checkFile(file, source)).toEqual([]);
  });

  test.each([
    ['runtime/attend.cc', '#include "../kernels/attend.h"', 'runtime must not include'],
    ['runtime/attend.cc', '#include "../binding/addon.h"', 'runtime must not include'],
    ['runtime/attend.cc', '#include <napi.h>', 'only binding/ may include <napi.h>'],
    ['binding/addon.cc', '#include "../kernels/attend.h"', 'binding must not include'],
    ['kernels/attend.h', '#include "../runtime/runtime.h"', 'kernels must not include'],
    ['kernels/attend.h', '#include <vector>', '<vector> may leak templates'],
    ['targets/avx2.cc', '  #  include <algorithm>', '<algorithm> may leak templates'],
    ['simd/avx2.h', '#include "../kernels/math.h"', 'simd must not include'],
    ['ops.h', '#include "runtime/runtime.h"', 'ops.h must not include'],
  ])('%s with %s is refused', (file, source, problem) => {
    expect(checkFile(file, source)).toEqual([expect.stringContaining(problem)]);
  });
});

test('weak and unique symbols count as leaks, own symbols do not', () => {
  const leaks = [
    '0000000000000000 W std::vector<float>::push_back(float&&)',
    '0000000000000000 V typeinfo for gqa::Thing',
    '0000000000000000 u gqa::counter()::value',
  ];
  const own = [
    '0000000000000000 T gqa::avx2Table',
    '0000000000000010 t gqa::avx2::attend(Task const&)',
  ];
  expect(sharedSymbols([...leaks, ...own, ''].join('\n'))).toEqual(leaks);
});
