/**
 * The operations of training against float64: each backward pass against central differences of the oracle's forward pass,
 * at small shapes, and against analytic gradients, themselves held to such differences, at shapes that have tiles, blocks,
 * tails and several tasks. The error of a gradient g is max |g - g*| / max |g*|.
 */
import { attention, attentionBackward } from '../../lib';
import { getBackend } from '../../lib/backend';
import type { AttendBackwardArgs } from '../../lib/backend';
import { attentionOracle, rmsNormOracle, swigluOracle, type OracleAttention } from '../oracle';
import {
  adamWStep,
  attentionGradients,
  centralDifferences,
  dot,
  lossOracle,
  rmsNormGradients,
  swigluGradients,
} from '../oracle-gradients';
import { expectClose, expectSameBits } from '../support/compare';
import type { Numbers } from '../support/numbers';
import { Random } from '../support/random';
import { axis } from '../support/samples';
import { f32Tensor, normals } from '../support/tensors';
import { GRADIENT, GRADIENT_DIFFERENCES } from '../tolerances';

const backend = getBackend();
const f32 = (x: ArrayLike<number>) => Float32Array.from(x);
/** Slack behind an output: nothing may be written there. */
const SLACK = 16;

/** An array for a result, full of what a kernel must overwrite. */
function result(count: number): Float32Array {
  return new Float32Array(count + SLACK).fill(77).subarray(0, count);
}

function expectGradient(what: string, actual: Float32Array, expected: Numbers, most: number): void {
  const largest = Array.from(expected).reduce((m, x) => Math.max(m, Math.abs(x)), 0) || 1;
  const relative = (x: Numbers) => Array.from(x, (y) => y / largest);
  expectClose(what, relative(actual), relative(expected), most);
  const slack = new Float32Array(actual.buffer, 4 * actual.length);
  expect(slack.every((x) => x === 77)).toBe(true);
}

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
  'attention: G $group of $kvHeads, $queryTokens queries, $keyTokens keys, window $window',
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

test.each(
  axis([
    [1, 1],
    [3, 5],
    [2, 16],
    [70, 577],
  ]),
)('RMSNorm of %i tokens of %i', (tokens, dim) => {
  const random = new Random(tokens);
  const [x, gradOut, before] = [1, 2, 3].map(() => normals(random, tokens * dim, 'f32'));
  const [weight, start] = [1, 2].map(() => normals(random, dim, 'f32'));
  const eps = 1e-3;
  const { gradX, gradWeight } = rmsNormGradients(x, weight, eps, gradOut);
  const args = { x: f32(x), weight: f32(weight), gradOut: f32(gradOut), tokens, dim, eps };
  for (const trained of [true, false]) {
    const [toX, toWeight] = [result(tokens * dim), result(dim)];
    toX.set(before);
    toWeight.set(start);
    backend.rmsNormBackward({ ...args, gradX: toX, gradWeight: trained ? toWeight : null });
    const added = gradX.map((g, i) => before[i] + g);
    expectGradient('gradX', toX, added, GRADIENT);
    const weightAdded = trained ? gradWeight.map((g, i) => start[i] + g) : start;
    expectGradient('gradWeight', toWeight, weightAdded, GRADIENT);
  }
  if (tokens * dim > 100) return;
  const loss = () => dot(rmsNormOracle(x, weight, eps), gradOut);
  expectClose('analytic by x', gradX, centralDifferences(x, loss), 1e-7);
  expectClose('analytic by the weight', gradWeight, centralDifferences(weight, loss), 1e-7);
});

test.each([1, 15, 16, 33, 70_000])('SwiGLU of %i', (count) => {
  const random = new Random(count);
  const [gate, up, gradOut] = [4, 1, 1].map((scale) => normals(random, count, 'f32', scale));
  if (count === 33) gate.splice(0, 4, 100, -100, 0, -700);
  const expected = swigluGradients(gate, up, gradOut);
  const [gradGate, gradUp] = [result(count), result(count)];
  const args = { gradOut: f32(gradOut), count };
  backend.swigluBackward({ ...args, gate: f32(gate), up: f32(up), gradGate, gradUp });
  expectGradient('gradGate', gradGate, expected.gradGate, GRADIENT);
  expectGradient('gradUp', gradUp, expected.gradUp, GRADIENT);
  // In place.
  const [g, u] = [f32(gate), f32(up)];
  backend.swigluBackward({ ...args, gate: g, up: u, gradGate: g, gradUp: u });
  expectSameBits('gradGate in place', g, f32(gradGate));
  expectSameBits('gradUp in place', u, f32(gradUp));
  if (count > 16) return;
  const loss = () => dot(swigluOracle(gate, up), gradOut);
  expectClose('analytic by gate', expected.gradGate, centralDifferences(gate, loss), 1e-8);
  expectClose('analytic by up', expected.gradUp, centralDifferences(up, loss), 1e-8);
});

test.each(
  axis([
    { vocab: 1, share: 0, taught: false },
    { vocab: 17, share: 0, taught: false },
    { vocab: 18, share: 0.3, taught: true },
    { vocab: 5000, share: 1, taught: true },
    { vocab: 2050, share: 0, taught: true },
  ]),
)('cross-entropy of $vocab, teacher $taught, $share of it', ({ vocab, share, taught }) => {
  const random = new Random(vocab);
  const rows = 20;
  const draw = () =>
    Array.from({ length: rows }, (_, r) => normals(random, vocab, 'f32', r % 2 === 0 ? 1 : 12));
  const [logits, teacher] = [draw(), draw()];
  if (taught) teacher[0][3] = -Infinity;
  const targets = logits.map((_, r) => (r === 2 ? -1 : random.int(0, vocab - 1)));
  const weight = 1 / 19;
  const args = {
    logits: result(rows * vocab),
    teacher: taught ? f32(teacher.flat()) : null,
    targets: Int32Array.from(targets),
    nll: result(rows),
    kl: taught ? result(rows) : null,
    ...{ rows, vocab, teacherShare: share, weight },
  };
  args.logits.set(logits.flat());
  backend.crossEntropy(args);
  const expected = logits.map((row, r) =>
    targets[r] < 0
      ? { nll: 0, kl: 0, gradient: row.map(() => 0) }
      : lossOracle(row, targets[r], taught ? teacher[r] : null, share),
  );
  const gradients = expected.flatMap(({ gradient }) => gradient.map((g) => g * weight));
  expectGradient('gradient', args.logits, gradients, GRADIENT);
  expectClose(
    'nll',
    args.nll,
    expected.map(({ nll }) => nll),
    1e-6,
  );
  if (args.kl !== null)
    expectClose(
      'kl',
      args.kl,
      expected.map(({ kl }) => kl),
      1e-6,
    );
  if (vocab > 18) return;
  const loss = () => {
    const { nll, kl } = lossOracle(logits[1], targets[1], taught ? teacher[1] : null, share);
    return (1 - share) * nll + share * kl;
  };
  expectClose('analytic', expected[1].gradient, centralDifferences(logits[1], loss), 1e-8);
});

test.each([1, 37, 40_000])('AdamW, three steps over %i', (count) => {
  const random = new Random(count);
  const options = { rate: 0.01, beta1: 0.9, beta2: 0.99, eps: 1e-6, decay: 0.1 };
  let expected = {
    weight: normals(random, count, 'f32'),
    m: new Array<number>(count).fill(0),
    v: new Array<number>(count).fill(0),
  };
  const start = f32(expected.weight);
  const [weight, m, v] = [start, expected.m, expected.v].map((x) => {
    const array = result(count);
    array.set(x);
    return array;
  });
  for (const step of [1, 2, 3]) {
    const gradient = normals(random, count, 'f32');
    expected = adamWStep(
      expected,
      gradient.map((g) => g * 0.5),
      step,
      options,
    );
    backend.adamW({
      ...options,
      ...{ weight, m, v, count, gradient: f32(gradient), gradientScale: 0.5 },
      correction1: 1 - options.beta1 ** step,
      correction2: 1 - options.beta2 ** step,
    });
  }
  expectGradient('m', m, expected.m, 1e-6);
  expectGradient('v', v, expected.v, 1e-6);
  expectGradient('weight', weight, expected.weight, 1e-6);
  const moved = (x: Numbers) => Array.from(x, (w, i) => w - start[i]);
  expectClose('the steps', moved(weight), moved(expected.weight), 1e-6);
});

test.each([
  [0, 5],
  [1, 1],
  [3, 70],
  [16, 16],
  [130, 33],
  [65, 300],
])('transpose of %i x %i', (rows, columns) => {
  const x = Float32Array.from({ length: rows * columns }, (_, i) => i);
  const out = result(rows * columns);
  backend.transpose({ x, out, rows, columns });
  const expected = Float32Array.from(x, (_, at) => (at % rows) * columns + Math.floor(at / rows));
  expectGradient('transposed', out, expected, 0);
});

test.each([0, 1, 17, 100_003])('sum of squares of %i', (count) => {
  // Squares that f32 would lose, and some it would not hold.
  const x = f32(normals(new Random(count), count, 'f32').map((y, i) => y * 10 ** ((i % 60) - 35)));
  const expected = dot(x, x);
  expect(Math.abs(backend.sumSquares(x, count) - expected)).toBeLessThanOrEqual(1e-13 * expected);
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
