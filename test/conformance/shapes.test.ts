/** Every group size, head dim and token count of the contract, each dtype, in decode and in prefill. */
import { attentionCase, checkAttention } from '../support/attention-case';
import { axis, thinned } from '../support/samples';

const DTYPES = ['f32', 'f16', 'bf16'] as const;
const GROUPS = [1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 16, 17, 48, 71];
const HEAD_DIMS = [
  1, 2, 3, 5, 8, 15, 16, 17, 31, 32, 33, 40, 63, 64, 80, 96, 127, 128, 129, 192, 256, 320, 511, 576,
];
const KEYS = [0, 1, 2, 15, 16, 17, 63, 64, 65, 100, 129, 300];
const QUERIES = [0, 1, 2, 3, 15, 16, 17, 64, 65, 129, 300];

describe.each(DTYPES)('%s', (dtype) => {
  describe.each(axis(GROUPS))('group of %i', (group) => {
    test.each([1, 2, 17])('%i queries', (queryTokens) => {
      checkAttention(
        attentionCase({
          seed: group,
          dtype,
          group,
          queryTokens,
          keyTokens: 70,
          causal: queryTokens > 1,
        }),
      );
    });
  });

  describe.each(axis(HEAD_DIMS))('head dim %i', (dim) => {
    test('as key and value dim', () => {
      const c = attentionCase({ seed: dim, dtype, headDim: dim, valueDim: dim, group: 3 });
      checkAttention({ ...c, queryTokens: 1, keyTokens: 37 });
      checkAttention({ ...c, queryTokens: 9, keyTokens: 37, causal: true });
    });
    test('beside another value dim', () => {
      const other = HEAD_DIMS[(HEAD_DIMS.indexOf(dim) * 7 + 5) % HEAD_DIMS.length];
      const c = attentionCase({ seed: dim, dtype, headDim: dim, valueDim: other, kvHeads: 1 });
      checkAttention({ ...c, queryTokens: 1, keyTokens: 19 });
      checkAttention({ ...c, queryTokens: 7, keyTokens: 19 });
    });
  });

  // How tokens are counted has nothing to do with the dtype: the whole grid once, a part of it for the others.
  const every = dtype === 'f32' ? 1 : 2;
  describe.each(axis(thinned(KEYS, every)))('%i keys', (keyTokens) => {
    test.each(axis(thinned(QUERIES, every)))('%i queries', (queryTokens) => {
      // Tq > Tk included: causal rows before the first key see nothing.
      const c = attentionCase({
        dtype,
        queryTokens,
        keyTokens,
        kvHeads: 1,
        headDim: 4,
        valueDim: 4,
      });
      checkAttention({ ...c, causal: true });
      if (queryTokens <= 17) checkAttention({ ...c, batch: 2 });
    });
  });

  test.each([
    ['batch', { batch: 0 }],
    ['queries', { queryTokens: 0 }],
    ['keys', { keyTokens: 0 }],
    ['all', { batch: 0, queryTokens: 0, keyTokens: 0 }],
  ])('zero %s', (_, zero) => {
    checkAttention(attentionCase({ dtype, ...zero }));
    checkAttention(attentionCase({ dtype, ...zero, causal: true, sinkLogits: true, out: 'q' }));
  });

  test('many heads, batches and rows at once', () => {
    checkAttention(
      attentionCase({
        dtype,
        batch: 3,
        kvHeads: 5,
        group: 3,
        queryTokens: 33,
        keyTokens: 140,
        causal: true,
      }),
    );
  });

  test('more rows than a call takes at once', () => {
    const c = attentionCase({ dtype, headDim: 32, valueDim: 32, causal: true });
    checkAttention({ ...c, queryTokens: 520, keyTokens: 520, kvHeads: 1, group: 3 });
    checkAttention({ ...c, queryTokens: 290, keyTokens: 700, window: 100, sinkTokens: 5 });
  });

  test('one row against many keys, whose work is split over keys', () => {
    const c = attentionCase({
      dtype,
      kvHeads: 1,
      group: 4,
      headDim: 8,
      valueDim: 8,
      queryTokens: 1,
    });
    for (const keyTokens of [1023, 2048, 4097]) checkAttention({ ...c, keyTokens, causal: true });
  });
});
