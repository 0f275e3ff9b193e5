/** Each option of attention alone, at its edges, for a decode row and for a prefill with causal alignment. */
import { attentionCase, checkAttention, type AttentionCase } from '../support/attention-case';
import { axis, thinned } from '../support/samples';

const DTYPES = ['f32', 'f16', 'bf16'] as const;
const SHAPES: Partial<AttentionCase>[] = [
  { queryTokens: 1, keyTokens: 133, causal: true },
  { queryTokens: 4, keyTokens: 70, causal: true, group: 5 },
  { queryTokens: 40, keyTokens: 40, causal: true, batch: 2 },
  { queryTokens: 67, keyTokens: 131, causal: true },
  { queryTokens: 37, keyTokens: 83 },
  { queryTokens: 50, keyTokens: 20, causal: true },
];

const OPTIONS: [string, Partial<AttentionCase>][] = [
  ...[1, 2, 5, 15, 16, 17, 64, 65, 1000].map((window): [string, Partial<AttentionCase>] => [
    `window ${window}`,
    { window },
  ]),
  ...[1, 4, 16, 70, 500].map((sinkTokens): [string, Partial<AttentionCase>] => [
    `${sinkTokens} sink tokens, window 7`,
    { window: 7, sinkTokens },
  ]),
  ['sink tokens without a window', { sinkTokens: 4 }],
  ['scale 0', { scale: 0 }],
  ['scale negative', { scale: -0.7 }],
  ['scale 1', { scale: 1, sharpness: 0.5 }],
  ['softcap 1', { softcap: 1 }],
  ['softcap 30', { softcap: 30, sharpness: 20 }],
  ['softcap tiny', { softcap: 0.01 }],
  ['softcap huge', { softcap: 1e6 }],
  ['scores near 100', { sharpness: 20 }],
  ['scores near 1000', { sharpness: 200 }],
  ['mask', { mask: 'random' }],
  ['mask of each batch', { mask: 'random', plane: { batch: true, heads: false } }],
  ['mask of each head', { mask: 'random', plane: { batch: false, heads: true } }],
  ['mask of each batch and head', { mask: 'random', plane: { batch: true, heads: true } }],
  ['mask with hidden rows', { mask: 'hidden row', plane: { batch: true, heads: true } }],
  ['mask hiding all', { mask: 'all hidden' }],
  ['mask and window', { mask: 'random', window: 9, sinkTokens: 3 }],
  ['bias', { bias: 'plain' }],
  ['bias of each batch', { bias: 'plain', plane: { batch: true, heads: false } }],
  ['bias of each head', { bias: 'plain', plane: { batch: false, heads: true } }],
  ['bias of each batch and head', { bias: 'plain', plane: { batch: true, heads: true } }],
  ['bias with -Infinity', { bias: 'with -Infinity' }],
  ['bias with rows of -Infinity', { bias: 'row of -Infinity' }],
  ['bias and softcap', { bias: 'plain', softcap: 2, sharpness: 3 }],
  ['ALiBi', { alibi: true }],
  ['ALiBi and window', { alibi: true, window: 20 }],
  ['sink logits', { sinkLogits: true }],
  ['sink logits on hidden rows', { sinkLogits: true, mask: 'hidden row' }],
  ['sink logits and window', { sinkLogits: true, window: 3 }],
  ['dropout', { dropout: { probability: 0.3, seed: 7 } }],
  ['dropout of nearly all', { dropout: { probability: 0.99, seed: 2 ** 32 - 1 }, causal: false }],
  ['dropout and sink logits', { dropout: { probability: 0.5, seed: 0 }, sinkLogits: true }],
  ['the widest window and sinks', { window: 2 ** 53 - 1, sinkTokens: 2 ** 53 - 1 }],
  ['a window of 1 and endless sinks', { window: 1, sinkTokens: 2 ** 53 - 1 }],
  ['out given', { out: 'q' }],
  ['out given in f32', { out: 'f32' }],
  [
    'mask, bias, ALiBi, sink logits',
    { mask: 'random', bias: 'plain', alibi: true, sinkLogits: true },
  ],
];

describe.each(DTYPES)('%s', (dtype) => {
  test.each(OPTIONS)('%s', (_, option) => {
    for (const [i, shape] of axis(SHAPES).entries()) {
      checkAttention(
        attentionCase({ seed: 100 + i, dtype, headDim: 20, valueDim: 12, ...shape, ...option }),
      );
    }
  });

  test.each(thinned(OPTIONS, 3))('%s, fast', (_, option) => {
    checkAttention(
      attentionCase({
        dtype,
        headDim: 40,
        valueDim: 24,
        group: 3,
        queryTokens: 37,
        keyTokens: 83,
        causal: true,
        precision: 'fast',
        ...option,
      }),
    );
  });
});
