/** Random combinations of everything: the bugs live where two axes meet. Every seed is fixed. */
import { checkAttention, type AttentionCase } from '../support/attention-case';
import { Random } from '../support/random';
import { samples } from '../support/samples';

const DTYPES = ['f32', 'f16', 'bf16'] as const;
const GROUPS = [1, 2, 3, 4, 5, 6, 7, 8, 16, 48, 71];
const DIMS = [1, 2, 3, 5, 8, 16, 17, 31, 32, 33, 40, 64, 80, 96, 127, 128, 129, 192, 256, 320, 576];
const TOKENS = [0, 1, 2, 15, 16, 17, 63, 64, 65, 100, 129, 300];
/** Multiply-adds of one case at most: the naive oracle does each. Making and comparing an element takes as long as 20. */
const BUDGET = 800_000;
const ELEMENT_COST = 20;

function randomCase(seed: number): AttentionCase {
  const random = new Random(seed);
  for (;;) {
    const headDim = random.pick(DIMS);
    const c: AttentionCase = {
      seed,
      dtype: random.pick(DTYPES),
      batch: random.pick([1, 1, 1, 2, 3]),
      queryTokens: random.pick(random.chance(0.4) ? [1, 2, 3, 4, 7] : TOKENS),
      keyTokens: random.pick(TOKENS),
      kvHeads: random.pick([1, 1, 2, 3, 5]),
      group: random.pick(GROUPS),
      headDim,
      valueDim: random.chance(0.6) ? headDim : random.pick(DIMS),
      causal: random.chance(0.7),
      plane: { batch: random.chance(0.5), heads: random.chance(0.5) },
    };
    const rows = c.queryTokens * c.kvHeads * c.group;
    const width = c.headDim + c.valueDim;
    const elements = (rows + c.keyTokens * c.kvHeads) * width;
    const work = c.batch * (rows * c.keyTokens * width + ELEMENT_COST * elements);
    if (work <= BUDGET) return { ...c, ...randomOptions(random) };
  }
}

function randomOptions(random: Random): Partial<AttentionCase> {
  const o: Partial<AttentionCase> = {};
  if (random.chance(0.4)) o.window = random.pick([1, 5, 16, 64, 100, 1000]);
  if (random.chance(0.3)) o.sinkTokens = random.pick([1, 4, 17, 64]);
  if (random.chance(0.2)) o.scale = random.pick([0, -0.3, 0.05, 0.5]);
  if (random.chance(0.2)) o.softcap = random.pick([0.5, 5, 50]);
  if (random.chance(0.25)) o.mask = random.pick(['random', 'hidden row', 'all hidden'] as const);
  if (random.chance(0.25))
    o.bias = random.pick(['plain', 'with -Infinity', 'row of -Infinity'] as const);
  if (random.chance(0.2)) o.alibi = true;
  if (random.chance(0.2)) o.sinkLogits = true;
  if (random.chance(0.2)) o.sharpness = random.pick([0.1, 5, 50]);
  if (random.chance(0.1)) o.dropout = { probability: 0.4, seed: random.int(0, 2 ** 32 - 1) };
  if (random.chance(0.3)) o.out = random.pick(['q', 'f32'] as const);
  if (random.chance(0.3)) o.precision = 'fast';
  return o;
}

test.each(Array.from({ length: samples(300) }, (_, i) => i + 1))('combination %i', (seed) => {
  checkAttention(randomCase(seed));
});
