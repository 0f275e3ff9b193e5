/**
 * The backward pass of attention against float64: central differences of the oracle's forward pass, at small shapes, and
 * analytic gradients, themselves held to such differences, at shapes that have tiles, blocks, tails and several tasks. The
 * error of a gradient g is max |g - g*| / max |g*|.
 */
import { attention, attentionBackward } from '../../lib';
import { getBackend } from '../../lib/backend';
import type { AttendBackwardArgs } from '../../lib/backend';
import { attentionOracle, type OracleAttention } from '../oracle';
import { attentionGradients, centralDifferences, dot } from '../oracle-gradients';
import { expectClose, expectSameBits } from '../support/compare';
import { expectGradient, result } from '../support/gradients';
import type { Numbers } from '../support/numbers';
import { Random } from '../support/random';
import { axis } from '../support/samples';
import { f32Tensor, normals } from '../support/tensors';
import { GRADIENT, GRADIENT_DIFFERENCES } from '../tolerances';

const backend = getBackend();
const f32 = (x: ArrayLike<number>) => Float32Array.from(x);

interface Case extends Partial<OracleAttention> {
  group: number;
  kvHeads: number;
  queryTokens: number;
  keyTokens: number;
}

function attentionCase({ group, ...c }: Case): { a: OracleAttention; gradOut: number[] } {
  const shape = { batch: 1, headDim: 5, valueDim: 5, causal: true, heads: c.kvHeads * group, ...c };
  const random = new Random(c.queryTokens * 31 + c.keyTokens);
  const draw = (tokens: number, heads: number, dim: number) =>
    normals(random, shape.batch * tokens * heads * dim, 'f32');
  return {
    a: {
      ...shape,
      q: draw(c.queryTokens, shape.heads, shape.headDim),
      k: draw(c.keyTokens, c.kvHeads, shape.headDim),
      v: draw(c.keyTokens, c.kvHeads, shape.valueDim),
    },
    gradOut: draw(c.queryTokens, shape.heads, shape.valueDim),
  };
}

/** The backend's gradients, from the oracle's output as f32. */
function attendBackward(a: OracleAttention, gradOut: number[]): AttendBackwardArgs {
  const { out, lse } = attentionOracle(a);
  const args = {
    ...a,
    q: f32(a.q),
    k: f32(a.k),
    v: f32(a.v),
    out: f32(out),
    lse: f32(lse),
    gradOut: f32(gradOut),
    gradQ: result(a.q.length),
    gradK: result(a.k.length),
    gradV: result(a.v.length),
    causal: a.causal ?? false,
    window: a.window ?? Infinity,
    sinkTokens: a.sinkTokens ?? 0,
    scale: a.scale ?? 1 / Math.sqrt(a.headDim),
    softcap: a.softcap ?? 0,
  };
  backend.attendBackward(args);
  return args;
}

const GRADIENTS = ['gradQ', 'gradK', 'gradV'] as const;

const SMALL: Case[] = [
  { group: 1, kvHeads: 2, queryTokens: 5, keyTokens: 5, headDim: 1, valueDim: 1 },
  { group: 7, kvHeads: 1, queryTokens: 3, keyTokens: 18, headDim: 17, valueDim: 3, softcap: 1 },
  { group: 2, kvHeads: 1, queryTokens: 4, keyTokens: 6, window: 2, sinkTokens: 1, softcap: 2 },
  { group: 3, kvHeads: 2, queryTokens: 5, keyTokens: 3, headDim: 3, valueDim: 7, batch: 2 },
  { group: 5, kvHeads: 1, queryTokens: 2, keyTokens: 5, causal: false, window: 2, scale: -0.3 },
];

test.each(axis(SMALL))(
  'attention against central differences: G $group, $queryTokens queries, $keyTokens keys',
  (c) => {
    const { a, gradOut } = attentionCase(c);
    const loss = () => dot(attentionOracle(a).out, gradOut);
    const args = attendBackward(a, gradOut);
    const analytic = attentionGradients(a, gradOut);
    const inputs = { gradQ: a.q, gradK: a.k, gradV: a.v };
    for (const name of GRADIENTS) {
      const differences = centralDifferences(inputs[name] as number[], loss);
      expectGradient(name, args[name], differences, GRADIENT_DIFFERENCES);
      expectGradient(`${name}, closer`, args[name], differences, GRADIENT);
      expectClose(`analytic ${name}`, analytic[name], differences, 1e-8);
    }
  },
);

const LARGE: Case[] = [
  { group: 7, kvHeads: 1, queryTokens: 70, keyTokens: 131, headDim: 33, valueDim: 20 },
  { group: 3, kvHeads: 2, queryTokens: 110, keyTokens: 110, headDim: 64, valueDim: 64 },
  { group: 1, kvHeads: 2, queryTokens: 100, keyTokens: 77, headDim: 16, valueDim: 80 },
  { group: 2, kvHeads: 1, queryTokens: 129, keyTokens: 200, window: 40, sinkTokens: 3, batch: 2 },
  { group: 5, kvHeads: 1, queryTokens: 65, keyTokens: 65, window: 70, sinkTokens: 70, softcap: 3 },
  { group: 1, kvHeads: 1, queryTokens: 50, keyTokens: 130, headDim: 32, causal: false, window: 20 },
  { group: 2, kvHeads: 1, queryTokens: 9, keyTokens: 20, headDim: 576, valueDim: 512 },
];

test.each(axis(LARGE))(
  'attention: G $group of $kvHeads, $queryTokens queries, $keyTokens keys',
  (c) => {
    const { a, gradOut } = attentionCase(c);
    const args = attendBackward(a, gradOut);
    const expected = attentionGradients(a, gradOut);
    for (const name of GRADIENTS) expectGradient(name, args[name], expected[name], GRADIENT);
  },
);

test('attentionBackward goes back from what attention returns', () => {
  const { a, gradOut } = attentionCase({
    ...{ group: 2, kvHeads: 2, queryTokens: 4, keyTokens: 6, valueDim: 3 },
    ...{ window: 3, sinkTokens: 1, softcap: 4 },
  });
  const of = (x: Numbers, tokens: number, heads: number, dim: number) =>
    f32Tensor(x, [a.batch, tokens, heads, dim]);
  const q = of(a.q, a.queryTokens, a.heads, a.headDim);
  const k = of(a.k, a.keyTokens, a.kvHeads, a.headDim);
  const v = of(a.v, a.keyTokens, a.kvHeads, a.valueDim);
  const options = { causal: true, window: 3, sinkTokens: 1, softcap: 4 };
  const forward = attention(q, k, v, { ...options, returnLse: true });
  const gradient = of(gradOut, a.queryTokens, a.heads, a.valueDim);
  const actual = attentionBackward(q, k, v, { ...options, ...forward, gradOut: gradient });
  const expected = attentionGradients(a, gradOut);
  for (const name of GRADIENTS) expectClose(name, actual[name].data, expected[name], GRADIENT);
  expect(actual.gradK.shape).toEqual(k.shape);
  const none = f32Tensor([], [1, 0, 2, 5]);
  const empty = { out: gradient, lse: f32Tensor(new Array(16).fill(-Infinity), [1, 4, 4]) };
  const zero = attentionBackward(q, none, f32Tensor([], [1, 0, 2, 3]), {
    ...empty,
    gradOut: gradient,
  });
  expect(zero.gradQ.data.every((x) => x === 0)).toBe(true);
});

test('attention of no queries, of no keys', () => {
  const none = attentionCase({ group: 2, kvHeads: 2, queryTokens: 0, keyTokens: 70 });
  const noQueries = attendBackward(none.a, none.gradOut);
  expect([...noQueries.gradK, ...noQueries.gradV].every((x) => x === 0)).toBe(true);
  const { a, gradOut } = attentionCase({ group: 2, kvHeads: 2, queryTokens: 7, keyTokens: 0 });
  expect(attendBackward(a, gradOut).gradQ.every((x) => x === 0)).toBe(true);
});

test('a row that sees no key has no part, whatever its gradient', () => {
  const { a, gradOut } = attentionCase({ group: 1, kvHeads: 1, queryTokens: 4, keyTokens: 2 });
  const clean = attendBackward(a, gradOut);
  const dirty = attendBackward(
    a,
    gradOut.map((x, i) => (i < 2 * a.valueDim ? NaN : x)),
  );
  for (const name of GRADIENTS) expectSameBits(name, dirty[name], clean[name]);
  expect(clean.gradQ.subarray(0, 2 * a.headDim).every((x) => x === 0)).toBe(true);
});

test('the same bits for one thread and for all', () => {
  const { a, gradOut } = attentionCase({
    ...{ group: 4, kvHeads: 1, queryTokens: 300, keyTokens: 310, headDim: 20, window: 200 },
  });
  const random = new Random(3);
  const [tokens, dim] = [300, 300];
  const [x, gradX] = [1, 2].map(() => f32(normals(random, tokens * dim, 'f32')));
  const weight = f32(normals(random, dim, 'f32'));
  const run = () => {
    const { gradQ, gradK, gradV } = attendBackward(a, gradOut);
    const [toX, gradWeight] = [gradX.slice(), new Float32Array(dim)];
    const norm = { x, weight, gradOut: gradX, gradX: toX, gradWeight, tokens, dim, eps: 1e-5 };
    backend.rmsNormBackward(norm);
    const sum = Float64Array.of(backend.sumSquares(x, x.length));
    return { gradQ, gradK, gradV, gradX: toX, gradWeight, sum };
  };
  const { threads } = backend.info;
  const all = run();
  try {
    backend.limitThreads(1);
    const alone = run();
    for (const name of Object.keys(all) as (keyof typeof all)[]) {
      expectSameBits(name, f64(alone[name]), f64(all[name]));
    }
  } finally {
    backend.limitThreads(threads);
  }
});

function f64(x: ArrayLike<number>): Float64Array {
  return Float64Array.from(x);
}
