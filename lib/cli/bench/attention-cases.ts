/**
 * Attention as a user calls it, ready to be timed.
 *
 * decode         one query token over a KvCache, q and out f32, cache in the case's dtype
 * prefill        causal, q, k and v plain tensors [1, T, heads, D] of the case's dtype, out the same
 * prefill-cache  causal, the same T query rows over a KvCache that holds their keys, q and out f32
 */
import { attention } from '../../attention';
import type { FloatDType, CacheDType } from '../../core/dtype';
import type { Precision } from '../../core/precision';
import { Tensor } from '../../core/tensor';
import { KvCache } from '../../kv-cache/kv-cache';
import { formatHeads, type HeadShape } from '../options';
import { randomData, valueAt } from './data';
import { coldCopies } from './limits';
import type { Subject } from './measure';
import { attendRow, storedError, toleranceOf, type Elements, type KeyValues } from './oracle';
import { decodeWork, inputDType, isQuantised, prefillWork } from './roofline';

export const OPS = ['decode', 'prefill', 'prefill-cache'] as const;
export type Op = (typeof OPS)[number];

export interface AttentionCase {
  op: Op;
  shape: HeadShape;
  /** Keys attended over; in prefill also the query tokens. */
  context: number;
  /** Quantised storage is for the ops over a cache alone; its keys and values come as f32. */
  dtype: CacheDType;
  precision: Precision;
}

/** Queries are this many powers of two larger than keys: softmax then prefers some keys, and a wrong result shows. */
const QUERY_EXPONENT = 1;
/** Layers start at different tokens of one random run this much longer than the context. */
const LAYER_SHIFTS = 16;
/** Tokens appended at a time. */
const APPEND_TOKENS = 512;

export function describeCase({ op, shape, context, dtype, precision }: AttentionCase): string {
  const fast = precision === 'fast' ? ' fast' : '';
  return `${op} ${formatHeads(shape)} at ${context}, ${dtype}${fast}`;
}

function randomElements(
  dtype: FloatDType,
  count: number,
  seed: number,
  exponent?: number,
): Elements {
  return { dtype, data: randomData(dtype, count, seed, exponent) };
}

function slice({ data, dtype }: Elements, from: number, to: number): Elements {
  return { data: data.subarray(from, to), dtype };
}

function view({ data, dtype }: Elements, shape: number[]): Tensor<FloatDType> {
  return Tensor.view<FloatDType>(data, shape, dtype);
}

/**
 * Compares rows of the result with float64: the first, a middle and the last query token, each with the first and the
 * last head.
 */
function checkRows(
  { shape, dtype, ...about }: AttentionCase,
  { q, kv, out }: { q: Elements; kv: KeyValues; out: Elements },
): number {
  const { heads, kvHeads, headDim } = shape;
  const rowElements = heads * headDim;
  const queryTokens = q.data.length / rowElements;
  const tokens = [...new Set([0, queryTokens >> 1, queryTokens - 1])];
  let error = 0;
  for (const token of tokens) {
    for (const head of new Set([0, heads - 1])) {
      const at = token * rowElements + head * headDim;
      const keys = about.context - queryTokens + token + 1;
      const kvHead = Math.floor(head / (heads / kvHeads));
      const expected = attendRow(q, at, kv, kvHead, keys);
      const actual = expected.map((_, d) => valueAt(out.data, out.dtype, at + d));
      error = Math.max(error, storedError(dtype, expected, actual));
    }
  }
  const allowed = toleranceOf(dtype, about.precision);
  if (!(error <= allowed)) {
    throw new Error(
      `${describeCase({ shape, dtype, ...about })}: the result is off by ${error} against float64, ` +
        `allowed is ${allowed}`,
    );
  }
  return error;
}

/** Keys and values of the tokens that `layer` holds, out of a longer run. */
function layerTokens(run: KeyValues, layer: number, context: number): KeyValues {
  const rowElements = run.kvHeads * run.headDim;
  const from = (layer % LAYER_SHIFTS) * rowElements;
  const to = from + context * rowElements;
  return { ...run, k: slice(run.k, from, to), v: slice(run.v, from, to) };
}

function fillCache(cache: KvCache, layers: number, run: KeyValues, context: number) {
  const sequence = cache.sequence();
  const { kvHeads, headDim } = run;
  const rowElements = kvHeads * headDim;
  for (let from = 0; from < context; from += APPEND_TOKENS) {
    const tokens = Math.min(APPEND_TOKENS, context - from);
    for (let layer = 0; layer < layers; layer++) {
      const { k, v } = layerTokens(run, layer, context);
      const part = (elements: Elements) =>
        view(slice(elements, from * rowElements, (from + tokens) * rowElements), [
          tokens,
          kvHeads,
          headDim,
        ]);
      sequence.append(layer, part(k), part(v));
    }
  }
  return sequence;
}

/** `queryTokens` rows over a cache of so many layers that a rotation through them is cold. */
function cacheSubject(theCase: AttentionCase, queryTokens: number): Subject {
  const { shape, context, dtype, op, precision } = theCase;
  const { heads, kvHeads, headDim } = shape;
  const work = (op === 'decode' ? decodeWork : prefillWork)(shape, context, dtype);
  const layers = op === 'decode' ? coldCopies(decodeWork(shape, context, dtype).bytes) : 1;
  const inputs = inputDType(dtype);
  const runElements = (context + LAYER_SHIFTS) * kvHeads * headDim;
  const run: KeyValues = {
    k: randomElements(inputs, runElements, 1),
    v: randomElements(inputs, runElements, 2),
    kvHeads,
    headDim,
  };
  const cache = new KvCache({
    layers,
    kvHeads,
    headDim,
    capacity: context,
    dtype,
  });
  const sequence = fillCache(cache, layers, run, context);
  const q = randomElements('f32', queryTokens * heads * headDim, 3, QUERY_EXPONENT);
  const outData = new Float32Array(q.data.length);
  const qTensor = view(q, [1, queryTokens, heads, headDim]);
  const out = Tensor.view(outData, [1, queryTokens, heads, headDim], 'f32');
  let next = 0;
  const run1 = (layer: number) => attention(qTensor, sequence.layer(layer), { out, precision });
  return {
    work,
    period: layers,
    run: (calls) => {
      for (let call = 0; call < calls; call++) {
        run1(next);
        next = next + 1 === layers ? 0 : next + 1;
      }
    },
    verify: () =>
      Math.max(
        ...[...new Set([0, layers - 1])].map((layer) => {
          run1(layer);
          const kv = layerTokens(run, layer, context);
          return checkRows(theCase, { q, kv, out: { data: outData, dtype: 'f32' } });
        }),
      ),
    dispose: () => {
      sequence.dispose();
      cache.dispose();
    },
  };
}

function tensorSubject(theCase: AttentionCase, dtype: FloatDType): Subject {
  const { shape, context, precision } = theCase;
  const { heads, kvHeads, headDim } = shape;
  const q = randomElements(dtype, context * heads * headDim, 3, QUERY_EXPONENT);
  const k = randomElements(dtype, context * kvHeads * headDim, 1);
  const v = randomElements(dtype, context * kvHeads * headDim, 2);
  const result: Elements = { dtype, data: q.data.slice().fill(0) };
  const tensors = {
    q: view(q, [1, context, heads, headDim]),
    k: view(k, [1, context, kvHeads, headDim]),
    v: view(v, [1, context, kvHeads, headDim]),
    out: view(result, [1, context, heads, headDim]),
  };
  const run1 = () =>
    attention(tensors.q, tensors.k, tensors.v, { causal: true, out: tensors.out, precision });
  return {
    work: prefillWork(shape, context, dtype),
    period: 1,
    run: (calls) => {
      for (let call = 0; call < calls; call++) run1();
    },
    verify: () => {
      run1();
      return checkRows(theCase, { q, kv: { k, v, kvHeads, headDim }, out: result });
    },
    dispose: () => Object.values(tensors).forEach((tensor) => tensor.dispose()),
  };
}

export function attentionSubject(theCase: AttentionCase): Subject {
  const { op, dtype } = theCase;
  if (op === 'prefill') {
    if (isQuantised(dtype)) throw new Error('plain tensors are not quantised');
    return tensorSubject(theCase, dtype);
  }
  return cacheSubject(theCase, theCase.op === 'decode' ? 1 : theCase.context);
}
