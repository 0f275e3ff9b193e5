/** Attention over arenas of every pair of dtypes, rotated or not, with a tail of floats and queries for sinks. */
import * as fc from 'fast-check';
import type { AttendArgs } from '../../../lib/backend/contract';
import { attentionOracle } from '../../oracle';
import { expectClose } from '../../support/compare';
import { Random } from '../../support/random';
import { normals, toBits } from '../../support/tensors';
import { attentionTolerance, lseTolerance } from '../../tolerances';
import { BLOCK_TOKENS, createArena, createTail, heldRows } from './held-sequence';
import { storeSequence, tablesFor } from './held-sequence';
import { js } from './support';

const dtype = fc.constantFrom(
  'f32' as const,
  'f16' as const,
  'bf16' as const,
  'q8' as const,
  'q4' as const,
);

const storage = {
  kvHeads: fc.integer({ min: 1, max: 2 }),
  headDim: fc.integer({ min: 1, max: 70 }),
  valueDim: fc.integer({ min: 1, max: 70 }),
  keyDtype: dtype,
  valueDtype: dtype,
  rotateKeys: fc.boolean(),
  rotateValues: fc.boolean(),
};

const drawn = fc.record({
  ...storage,
  seed: fc.nat(1e6),
  tokens: fc.integer({ min: 1, max: 300 }),
  queryTokens: fc.integer({ min: 1, max: 30 }),
  group: fc.integer({ min: 1, max: 3 }),
  window: fc.oneof(fc.constant(Infinity), fc.integer({ min: 1, max: 200 })),
  sinkTokens: fc.integer({ min: 0, max: 130 }),
  sinkQ: fc.boolean(),
  sinkOrdinals: fc.integer({ min: 0, max: 2 }),
  recentBlocks: fc.integer({ min: 0, max: 2 }),
});

test('attention reads what is held, whatever holds it', () => {
  fc.assert(
    fc.property(drawn, (p) => {
      const random = new Random(p.seed);
      const { kvHeads, headDim, valueDim, tokens, sinkTokens, window } = p;
      const queryTokens = Math.min(p.queryTokens, tokens);
      const heads = kvHeads * p.group;
      const whole = Math.floor(tokens / BLOCK_TOKENS);
      const firstOrdinal = Math.max(0, whole - p.recentBlocks);
      const extent = { sinkOrdinals: Math.min(p.sinkOrdinals, firstOrdinal), firstOrdinal };
      const blocks = whole + 2;
      const rows = {
        k: normals(random, tokens * kvHeads * headDim, 'f32'),
        v: normals(random, tokens * kvHeads * valueDim, 'f32'),
      };
      const [table, tailTable] = [tablesFor(random, 2, blocks)[1], tablesFor(random, 1, blocks)[0]];
      const [main, tail] = [createArena(p, 2 * blocks), createTail(p, blocks)];
      const kv = storeSequence(main, table, tail, tailTable, rows, extent);
      const held = heldRows(p, rows, extent);

      const q = normals(random, queryTokens * heads * headDim, 'f32');
      const sinkQ = p.sinkQ ? normals(random, q.length, 'f32') : undefined;
      const scale = 1 / Math.sqrt(headDim);
      const shape = { queryTokens, keyTokens: tokens, heads, kvHeads, headDim, valueDim };
      const features = { causal: true, window, sinkTokens, scale };
      const args: AttendArgs = {
        ...{ ...shape, ...features, ...NO_FEATURES, batch: 1, kv },
        q: toBits(q, 'f32'),
        sinkQ: sinkQ === undefined ? null : toBits(sinkQ, 'f32'),
        qDtype: 'f32',
        out: new Float32Array(queryTokens * heads * valueDim).fill(NaN),
        outDtype: 'f32',
        lse: new Float32Array(queryTokens * heads).fill(NaN),
      };
      js.attend(args);
      const expected = attentionOracle({ q, sinkQ, ...held, batch: 1, ...shape, ...features });
      const { largestScore } = expected;
      expectClose('out', args.out, expected.out, attentionTolerance('f32', largestScore));
      expectClose('lse', args.lse!, expected.lse, lseTolerance('f32', largestScore));
    }),
    { numRuns: 80 },
  );
});

const NO_FEATURES = {
  softcap: 0,
  mask: null,
  bias: null,
  alibiSlopes: null,
  sinkLogits: null,
  stats: null,
  dropout: null,
  precision: 'exact' as const,
};
