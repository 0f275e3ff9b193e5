/** One attention problem for the backend's table itself: inputs drawn from a seed, in tensors or in an arena. */
import { createJsBackend } from '../../../lib/backend/js/index';
import type { AttendArgs, Arena, Backend, BlockTable } from '../../../lib/backend/contract';
import { attentionOracle, type OracleAttention, type OracleResult } from '../../oracle';
import { expectClose, toNumbers } from '../../support/compare';
import type { FloatName } from '../../support/numbers';
import { Random } from '../../support/random';
import { normals, toBits } from '../../support/tensors';
import { attentionTolerance, lseTolerance } from '../../tolerances';

export const js: Backend = createJsBackend('the tests ask for it');

export interface Problem {
  seed: number;
  dtype: FloatName;
  outDtype: FloatName;
  batch: number;
  queryTokens: number;
  keyTokens: number;
  kvHeads: number;
  group: number;
  headDim: number;
  valueDim: number;
  causal: boolean;
  window: number;
  sinkTokens: number;
  softcap: number;
  mask: boolean;
  bias: boolean;
  alibi: boolean;
  sinkLogits: boolean;
  dropout: number;
}

export const SMALL: Problem = {
  seed: 1,
  dtype: 'f32',
  outDtype: 'f32',
  batch: 1,
  queryTokens: 3,
  keyTokens: 20,
  kvHeads: 2,
  group: 3,
  headDim: 5,
  valueDim: 7,
  causal: true,
  window: Infinity,
  sinkTokens: 0,
  softcap: 0,
  mask: false,
  bias: false,
  alibi: false,
  sinkLogits: false,
  dropout: 0,
};

export interface Inputs {
  args: AttendArgs;
  oracle: OracleAttention;
  k: number[];
  v: number[];
}

export function inputs(p: Problem): Inputs {
  const random = new Random(p.seed);
  const heads = p.kvHeads * p.group;
  const q = normals(random, p.batch * p.queryTokens * heads * p.headDim, p.dtype);
  const k = normals(random, p.batch * p.keyTokens * p.kvHeads * p.headDim, p.dtype);
  const v = normals(random, p.batch * p.keyTokens * p.kvHeads * p.valueDim, p.dtype);
  const rows = p.batch * p.queryTokens * heads;
  const scale = 1 / Math.sqrt(p.headDim);
  const plane = p.queryTokens * p.keyTokens;
  const oracle: OracleAttention = { ...p, heads, q, k, v, scale, ...NO_FEATURES };
  const features: Pick<AttendArgs, 'mask' | 'bias' | 'alibiSlopes' | 'sinkLogits' | 'dropout'> = {
    mask: null,
    bias: null,
    alibiSlopes: null,
    sinkLogits: null,
    dropout: null,
  };
  if (p.mask) {
    // Of every head, the same for the whole batch.
    const data = Uint8Array.from({ length: heads * plane }, () => (random.chance(0.6) ? 7 : 0));
    oracle.mask = { data, batch: 1, heads };
    features.mask = { data, batchStride: 0, headStride: plane };
  }
  if (p.bias) {
    // Of every sequence, the same for all heads.
    const draw = (): number => (random.chance(0.2) ? -Infinity : random.normal());
    const data = Float32Array.from({ length: p.batch * plane }, draw);
    oracle.bias = { data, batch: p.batch, heads: 1 };
    features.bias = { data, batchStride: plane, headStride: 0 };
  }
  if (p.alibi) {
    features.alibiSlopes = Float32Array.from({ length: heads }, (_, h) => 2 ** -(h + 1));
    oracle.alibiSlopes = features.alibiSlopes;
  }
  if (p.sinkLogits) {
    features.sinkLogits = Float32Array.from(random.normals(heads));
    oracle.sinkLogits = features.sinkLogits;
  }
  if (p.dropout > 0) {
    features.dropout = { probability: p.dropout, seed: random.int(0, 2 ** 32 - 1) };
    oracle.dropout = features.dropout;
  }
  const { dtype, outDtype } = p;
  const args: AttendArgs = {
    ...p,
    ...features,
    precision: 'exact',
    stats: null,
    heads,
    scale,
    q: toBits(q, dtype),
    sinkQ: null,
    qDtype: dtype,
    out: toBits(new Array<number>(rows * p.valueDim).fill(NaN), outDtype),
    lse: new Float32Array(rows).fill(NaN),
    kv: { type: 'tensor', k: toBits(k, dtype), v: toBits(v, dtype), dtype },
  };
  return { args, oracle, k, v };
}

const NO_FEATURES = {
  mask: undefined,
  bias: undefined,
  sinkLogits: undefined,
  alibiSlopes: undefined,
  dropout: undefined,
};

export function expectOracle(
  name: string,
  args: AttendArgs,
  oracle: OracleAttention,
): OracleResult {
  const expected = attentionOracle(oracle);
  const dtype = coarsest([args.outDtype, args.qDtype, arenaDtype(args)]);
  const out = toNumbers(args.out, args.outDtype);
  const tolerance = attentionTolerance(dtype, expected.largestScore);
  expectClose(`out of ${name}`, out, expected.out, tolerance);
  const lse = toNumbers(args.lse!, 'f32');
  expectClose(`lse of ${name}`, lse, expected.lse, lseTolerance(dtype, expected.largestScore));
  return expected;
}

function arenaDtype(args: AttendArgs): FloatName {
  return args.kv.type === 'tensor' ? args.kv.dtype : (args.kv.arena.layout.keyDtype as FloatName);
}

function coarsest(dtypes: FloatName[]): FloatName {
  if (dtypes.includes('bf16')) return 'bf16';
  return dtypes.includes('f16') ? 'f16' : 'f32';
}

export interface CacheShape {
  blockTokens: number;
  sinkBlocks: number;
  ringBlocks: number;
  /** Blocks of the arena that the sequence does not own. */
  others: number;
}

/** A table over shuffled blocks of an arena, and the arena. */
export function cacheFor(
  p: Problem,
  c: CacheShape,
  random: Random,
): { arena: Arena; table: BlockTable } {
  const blocks = c.sinkBlocks + c.ringBlocks + c.others;
  const { kvHeads, headDim, valueDim, dtype } = p;
  const dtypes = { keyDtype: dtype, valueDtype: dtype, rotateKeys: false, rotateValues: false };
  const layout = { kvHeads, headDim, valueDim, ...dtypes, blockTokens: c.blockTokens, blocks };
  const ids = random.shuffle(Array.from({ length: blocks }, (_, id) => id));
  const table = {
    ids: Int32Array.from(ids.slice(0, c.sinkBlocks + c.ringBlocks)),
    sinkBlocks: c.sinkBlocks,
    ringBlocks: c.ringBlocks,
  };
  return { arena: js.createArena(layout), table };
}
