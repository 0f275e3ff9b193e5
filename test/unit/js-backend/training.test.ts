/** The JavaScript backend's backward operations against central differences of the float64 oracle's forward ones. */
import type { AttendBackwardArgs } from '../../../lib/backend/contract-training';
import { jsTraining } from '../../../lib/backend/js/training';
import { attentionOracle, rmsNormOracle, swigluOracle } from '../../oracle';
import { Random } from '../../support/random';
import { normals } from '../../support/tensors';

const STEP = 1e-4;
const f32 = (x: ArrayLike<number>) => Float32Array.from(x);
const dot = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Array.from(a).reduce((sum, x, i) => sum + x * b[i], 0);

/** The gradient of loss by each element of x, which is left as it was. */
function differences(x: number[], loss: () => number): number[] {
  return x.map((value, i) => {
    x[i] = value + STEP;
    const above = loss();
    x[i] = value - STEP;
    const below = loss();
    x[i] = value;
    return (above - below) / (2 * STEP);
  });
}

function expectNear(actual: ArrayLike<number>, expected: ArrayLike<number>): void {
  const largest = Math.max(1, ...Array.from(expected, Math.abs));
  const worst = Math.max(...Array.from(actual, (a, i) => Math.abs(a - expected[i]) / largest));
  expect(worst).toBeLessThan(1e-5);
}

test.each([
  { causal: true, window: Infinity, sinkTokens: 0, softcap: 0, queryTokens: 5, keyTokens: 5 },
  { causal: true, window: 2, sinkTokens: 1, softcap: 2, queryTokens: 4, keyTokens: 6 },
  // The first two rows stand before every key.
  { causal: true, window: Infinity, sinkTokens: 0, softcap: 0, queryTokens: 5, keyTokens: 3 },
  { causal: false, window: Infinity, sinkTokens: 0, softcap: 0, queryTokens: 2, keyTokens: 5 },
])(
  'attention: $queryTokens queries, $keyTokens keys, causal $causal, window $window',
  (options) => {
    const shape = {
      batch: 2,
      heads: 4,
      kvHeads: 2,
      headDim: 4,
      valueDim: 3,
      scale: 0.6,
      ...options,
    };
    const random = new Random(11);
    const draw = (tokens: number, heads: number, dim: number) =>
      normals(random, shape.batch * tokens * heads * dim, 'f32');
    const q = draw(shape.queryTokens, shape.heads, shape.headDim);
    const k = draw(shape.keyTokens, shape.kvHeads, shape.headDim);
    const v = draw(shape.keyTokens, shape.kvHeads, shape.valueDim);
    const gradOut = draw(shape.queryTokens, shape.heads, shape.valueDim);
    const forward = () => attentionOracle({ ...shape, q, k, v });
    const loss = () => dot(forward().out, gradOut);
    const { out, lse } = forward();
    const args: AttendBackwardArgs = {
      ...shape,
      q: f32(q),
      k: f32(k),
      v: f32(v),
      out: f32(out),
      lse: f32(lse),
      gradOut: f32(gradOut),
      gradQ: new Float32Array(q.length).fill(7),
      gradK: new Float32Array(k.length).fill(7),
      gradV: new Float32Array(v.length).fill(7),
    };
    jsTraining.attendBackward(args);
    expectNear(args.gradQ, differences(q, loss));
    expectNear(args.gradK, differences(k, loss));
    expectNear(args.gradV, differences(v, loss));
  },
);

test('RMSNorm: added to what is there', () => {
  const [tokens, dim, eps] = [3, 5, 1e-3];
  const random = new Random(12);
  const x = normals(random, tokens * dim, 'f32');
  const weight = normals(random, dim, 'f32');
  const gradOut = normals(random, tokens * dim, 'f32');
  const loss = () => dot(rmsNormOracle(x, weight, eps), gradOut);
  const gradX = new Float32Array(tokens * dim).fill(1);
  const gradWeight = new Float32Array(dim).fill(2);
  jsTraining.rmsNormBackward({
    ...{ tokens, dim, eps, gradX, gradWeight },
    ...{ x: f32(x), weight: f32(weight), gradOut: f32(gradOut) },
  });
  expectNear(gradX.map((g) => g - 1), differences(x, loss)); // prettier-ignore
  expectNear(gradWeight.map((g) => g - 2), differences(weight, loss)); // prettier-ignore
});

test('SwiGLU, in place', () => {
  const random = new Random(13);
  const gate = normals(random, 40, 'f32');
  const up = normals(random, 40, 'f32');
  const gradOut = normals(random, 40, 'f32');
  const loss = () => dot(swigluOracle(gate, up), gradOut);
  const [g, u] = [f32(gate), f32(up)];
  jsTraining.swigluBackward({
    ...{ gate: g, up: u, gradGate: g, gradUp: u },
    ...{ gradOut: f32(gradOut), count: 40 },
  });
  expectNear(g, differences(gate, loss));
  expectNear(u, differences(up, loss));
});

test.each([0, 0.7])('cross-entropy with a teacher at share %p', (teacherShare) => {
  const [rows, vocab, weight] = [3, 7, 0.25];
  const random = new Random(14);
  const logits = normals(random, rows * vocab, 'f32').map((x) => 3 * x);
  const teacher = normals(random, rows * vocab, 'f32').map((x) => 3 * x);
  const targets = Int32Array.of(2, -1, 6);
  const run = (x: Float32Array) => {
    const args = {
      ...{ logits: x, teacher: f32(teacher), targets, rows, vocab, teacherShare, weight },
      ...{ nll: new Float32Array(rows), kl: new Float32Array(rows) },
    };
    jsTraining.crossEntropy(args);
    return args;
  };
  const softmax = (x: readonly number[]) => {
    const exps = x.map((e) => Math.exp(e));
    const sum = exps.reduce((a, b) => a + b);
    return exps.map((e) => e / sum);
  };
  const row = (x: readonly number[], i: number) => softmax(x.slice(i * vocab, (i + 1) * vocab));
  const nll = (i: number) => -Math.log(row(logits, i)[targets[i]]);
  const kl = (i: number) => {
    const p = row(logits, i);
    return row(teacher, i).reduce((sum, t, c) => sum + t * Math.log(t / p[c]), 0);
  };
  const loss = () =>
    [0, 2].reduce(
      (sum, i) => sum + weight * ((1 - teacherShare) * nll(i) + teacherShare * kl(i)),
      0,
    );
  const done = run(f32(logits));
  expectNear(done.logits, differences(logits, loss));
  expectNear(done.nll, [nll(0), 0, nll(2)]);
  expectNear(done.kl, [kl(0), 0, kl(2)]);
});

test('AdamW: two steps by hand', () => {
  const args = {
    ...{ weight: f32([1, -2]), gradient: f32([0.5, 4]), m: f32([0, 0]), v: f32([0, 0]), count: 2 },
    ...{ gradientScale: 0.5, rate: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, decay: 0.1 },
  };
  jsTraining.adamW({ ...args, correction1: 0.1, correction2: 0.01 });
  // The first step is the sign of the gradient, whatever its size; decay pulls to 0 beside it.
  expectNear(args.weight, [1 - 0.1 * (1 + 0.1), -2 - 0.1 * (1 - 0.2)]);
  jsTraining.adamW({ ...args, correction1: 1 - 0.81, correction2: 1 - 0.99 ** 2 });
  expectNear(args.m, [0.0475 / 1, 0.38]);
  expectNear(args.v, [0.00124375, 0.0796]);
});

test('transposition and the sum of squares', () => {
  const [rows, columns] = [37, 70];
  const x = f32(normals(new Random(15), rows * columns, 'f32'));
  const out = new Float32Array(rows * columns);
  jsTraining.transpose({ x, out, rows, columns });
  expect(out[5 * rows + 36]).toBe(x[36 * columns + 5]);
  expect(Array.from(out).sort()).toEqual(Array.from(x).sort());
  expect(jsTraining.sumSquares(f32([3, 4, 100]), 2)).toBe(25);
});
