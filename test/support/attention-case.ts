/** A description of one attention call, the random inputs that follow from it, and its check against the oracle. */
import { attention, Tensor, type AttentionFeatures } from '../../lib';
import type { Precision } from '../../lib/core/precision';
import { attentionOracle, type OracleAttention, type OracleResult, type Plane } from '../oracle';
import { attentionTolerance, lseTolerance } from '../tolerances';
import { expectClose, toNumbers } from './compare';
import type { FloatName } from './numbers';
import type { CacheName } from './quantise';
import { Random } from './random';
import { emptyOut, f32Tensor, normals, tensor, type FloatTensor, type WithLse } from './tensors';

export interface AttentionCase {
  seed: number;
  dtype: FloatName;
  batch: number;
  queryTokens: number;
  keyTokens: number;
  kvHeads: number;
  group: number;
  headDim: number;
  valueDim: number;
  causal?: boolean;
  window?: number;
  sinkTokens?: number;
  scale?: number;
  softcap?: number;
  /** Which dimensions of mask and bias are not broadcast. */
  plane?: { batch: boolean; heads: boolean };
  mask?: 'random' | 'hidden row' | 'all hidden';
  bias?: 'plain' | 'with -Infinity' | 'row of -Infinity';
  alibi?: boolean;
  sinkLogits?: boolean;
  dropout?: { probability: number; seed: number };
  precision?: Precision;
  /** Factor on q: scores of unit inputs lie within about 5 times it. */
  sharpness?: number;
  /** A caller's `out`: of q's dtype or f32. */
  out?: 'q' | 'f32';
}

/** A small case; tests override what they are about. */
export function attentionCase(overrides: Partial<AttentionCase>): AttentionCase {
  return {
    seed: 1,
    dtype: 'f32',
    batch: 1,
    queryTokens: 5,
    keyTokens: 21,
    kvHeads: 2,
    group: 2,
    headDim: 16,
    valueDim: 16,
    ...overrides,
  };
}

export interface AttentionInputs {
  q: FloatTensor;
  k: FloatTensor;
  v: FloatTensor;
  options: AttentionFeatures;
  oracle: OracleAttention;
}

export function attentionInputs(c: AttentionCase): AttentionInputs {
  const random = new Random(c.seed);
  const heads = c.kvHeads * c.group;
  const qShape = [c.batch, c.queryTokens, heads, c.headDim];
  const kShape = [c.batch, c.keyTokens, c.kvHeads, c.headDim];
  const vShape = [c.batch, c.keyTokens, c.kvHeads, c.valueDim];
  const q = normals(random, size(qShape), c.dtype, c.sharpness ?? 1);
  const k = normals(random, size(kShape), c.dtype);
  const v = normals(random, size(vShape), c.dtype);
  const oracle: OracleAttention = {
    ...c,
    heads,
    q,
    k,
    v,
    mask: undefined,
    bias: undefined,
    sinkLogits: undefined,
  };
  const { causal, window, sinkTokens, scale, softcap, dropout, precision } = c;
  const options: AttentionFeatures = {
    causal,
    window,
    sinkTokens,
    scale,
    softcap,
    dropout,
    precision,
  };
  const planes = {
    batch: c.plane?.batch === true ? c.batch : 1,
    heads: c.plane?.heads === true ? heads : 1,
  };
  if (c.mask !== undefined) {
    oracle.mask = { data: maskValues(c, planes, random), ...planes };
    options.mask = Tensor.view(Uint8Array.from(oracle.mask.data), planeShape(oracle.mask, c));
  }
  if (c.bias !== undefined) {
    oracle.bias = { data: biasValues(c, planes, random), ...planes };
    options.bias = f32Tensor(oracle.bias.data, planeShape(oracle.bias, c));
  }
  if (c.alibi === true) {
    oracle.alibiSlopes = Array.from({ length: heads }, (_, h) => Math.fround(2 ** (-(h + 1) / 2)));
    options.alibiSlopes = f32Tensor(oracle.alibiSlopes, [heads]);
  }
  if (c.sinkLogits === true) {
    oracle.sinkLogits = normals(random, heads, 'f32', 2);
    options.sinkLogits = f32Tensor(oracle.sinkLogits, [heads]);
  }
  return {
    q: tensor(q, qShape, c.dtype),
    k: tensor(k, kShape, c.dtype),
    v: tensor(v, vShape, c.dtype),
    options,
    oracle,
  };
}

/** Runs the case and compares out and LSE with the oracle; returns the oracle's result. */
export function checkAttention(c: AttentionCase): OracleResult {
  const { q, k, v, options, oracle } = attentionInputs(c);
  const expected = attentionOracle(oracle);
  const outDtype = c.out === 'f32' ? 'f32' : c.dtype;
  const shape = [c.batch, c.queryTokens, c.kvHeads * c.group, c.valueDim];
  if (c.out !== undefined) options.out = emptyOut(shape, outDtype);
  const result = attention(q, k, v, { ...options, returnLse: true });
  const name = JSON.stringify(c);
  if (c.out !== undefined && result.out !== options.out)
    throw new Error(`${name}: not the caller's out`);
  if (result.out.dtype !== outDtype) throw new Error(`${name}: out is ${result.out.dtype}`);
  if (String(result.out.shape) !== String(shape))
    throw new Error(`${name}: out is ${result.out.shape}`);
  compareWithOracle(name, result, expected, c.dtype, c.precision);
  return expected;
}

/** `kvDtype` is the coarsest dtype among q, k and v, or the cache's: it sets the tolerance. */
export function compareWithOracle(
  name: string,
  result: WithLse,
  expected: OracleResult,
  kvDtype: CacheName,
  precision?: Precision,
): void {
  const { out, lse } = result;
  expectClose(
    `out of ${name}`,
    toNumbers(out.data, out.dtype),
    expected.out,
    attentionTolerance(kvDtype, expected.largestScore, precision),
  );
  expectClose(
    `lse of ${name}`,
    toNumbers(lse.data, 'f32'),
    expected.lse,
    lseTolerance(kvDtype, expected.largestScore, precision),
  );
}

export function size(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}

function planeShape(plane: Plane, c: AttentionCase): number[] {
  return [plane.batch, plane.heads, c.queryTokens, c.keyTokens];
}

function maskValues(
  c: AttentionCase,
  planes: { batch: number; heads: number },
  random: Random,
): number[] {
  const rows = planes.batch * planes.heads * c.queryTokens;
  const values: number[] = [];
  for (let r = 0; r < rows; r++) {
    // Any byte but zero means visible.
    const hidden = c.mask === 'all hidden' || (c.mask === 'hidden row' && r % 3 === 0);
    for (let j = 0; j < c.keyTokens; j++)
      values.push(hidden || random.chance(0.4) ? 0 : random.int(1, 255));
  }
  return values;
}

function biasValues(
  c: AttentionCase,
  planes: { batch: number; heads: number },
  random: Random,
): number[] {
  const rows = planes.batch * planes.heads * c.queryTokens;
  const values: number[] = [];
  for (let r = 0; r < rows; r++) {
    for (let j = 0; j < c.keyTokens; j++) {
      const infinite =
        (c.bias === 'row of -Infinity' && r % 2 === 0) ||
        (c.bias === 'with -Infinity' && random.chance(0.3));
      values.push(infinite ? -Infinity : Math.fround(random.normal()));
    }
  }
  return values;
}
