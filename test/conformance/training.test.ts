/**
 * The operations of training but attention's against float64: backward passes against analytic gradients, held to central
 * differences of the oracle's forward pass at small sizes. The error of a gradient g is max |g - g*| / max |g*|.
 */
import { getBackend } from '../../lib/backend';
import { rmsNormOracle, swigluOracle } from '../oracle';
import {
  adamWStep,
  centralDifferences,
  dot,
  lossOracle,
  rmsNormGradients,
  swigluGradients,
} from '../oracle-gradients';
import { expectClose, expectSameBits } from '../support/compare';
import { expectGradient, result } from '../support/gradients';
import type { Numbers } from '../support/numbers';
import { Random } from '../support/random';
import { axis } from '../support/samples';
import { normals } from '../support/tensors';
import { GRADIENT } from '../tolerances';

const backend = getBackend();
const f32 = (x: ArrayLike<number>) => Float32Array.from(x);

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
