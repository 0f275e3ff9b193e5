/** RoPE against a rotation of complex numbers in float64, and its frequencies against transformers' figures. */
import { Rope, type RopeOptions } from '../../../lib/nn';
import { expectClose } from '../../support/compare';
import { Random } from '../../support/random';
import { ROPE } from '../../tolerances';
import { rotated } from './naive';

const f32 = (x: ArrayLike<number>) => Float32Array.from(x);

describe.each([false, true])('interleaved %p', (interleaved) => {
  test.each([
    { tokens: 1, heads: 1, headDim: 2, rotaryDim: 2, start: 0 },
    { tokens: 5, heads: 3, headDim: 16, rotaryDim: 16, start: 7 },
    { tokens: 4, heads: 2, headDim: 24, rotaryDim: 10, start: 100_000 },
    { tokens: 3, heads: 9, headDim: 64, rotaryDim: 64, start: -2 },
    { tokens: 2, heads: 1, headDim: 7, rotaryDim: 0, start: 3 },
    { tokens: 0, heads: 4, headDim: 8, rotaryDim: 8, start: 3 },
  ])('%o', (shape) => {
    const { tokens, heads, headDim, rotaryDim, start } = shape;
    const x = [...f32(new Random(headDim + tokens).normals(tokens * heads * headDim))];
    const rope = new Rope({ headDim, rotaryDim, interleaved, theta: 5000 });
    const y = f32(x);
    rope.apply(y, tokens, heads, start);
    const turn = { headDim, rotaryDim, interleaved, theta: 5000 };
    expectClose('rotated', y, rotated(x, heads, turn, start), ROPE);
  });
});

test('ranges of positions in any order, longer, shorter and overlapping', () => {
  const [heads, headDim] = [2, 8];
  const rope = new Rope({ headDim });
  for (const [start, tokens] of [
    [0, 4],
    [4, 1],
    [5, 1],
    [5, 3],
    [5, 2],
    [0, 9],
    [1, 8],
    [0, 1],
  ]) {
    const x = [...f32(new Random(start * 100 + tokens).normals(tokens * heads * headDim))];
    const y = f32(x);
    rope.apply(y, tokens, heads, start);
    const turn = { headDim, rotaryDim: headDim, interleaved: false, theta: 10_000 };
    expectClose(`${start} + ${tokens}`, y, rotated(x, heads, turn, start), ROPE);
  }
});

test('plain frequencies, scaled linearly and by factors', () => {
  const plain = new Rope({ headDim: 8, theta: 10_000 }).frequencies;
  [1, 0.1, 0.01, 0.001].forEach((f, r) => expect(plain[r]).toBeCloseTo(f, 14));
  const linear = new Rope({ headDim: 8, scaling: { type: 'linear', factor: 4 } }).frequencies;
  [1, 0.1, 0.01, 0.001].forEach((f, r) => expect(linear[r]).toBeCloseTo(f / 4, 14));
  const factors = [1, 2, 5, 10];
  const divided = new Rope({ headDim: 8, scaling: { type: 'factors', factors } }).frequencies;
  factors.forEach((factor, r) => expect(divided[r]).toBeCloseTo(plain[r] / factor, 14));
});

test('Llama-3 scaling: the figures transformers checks its own rule with', () => {
  const { frequencies } = new Rope({
    headDim: 128,
    scaling: {
      type: 'llama3',
      factor: 10,
      lowFreqFactor: 1,
      highFreqFactor: 4,
      originalContext: 2048,
    },
  });
  // Pairs 30 to 41: the last that stays, ten in between, the first that is slowed by the whole factor.
  const expected = [
    1.3335e-2, 1.073e-2, 7.7785e-3, 5.6009e-3, 3.9991e-3, 2.8248e-3, 1.9675e-3, 1.3449e-3,
    8.9549e-4, 5.7363e-4, 3.4539e-4, 2.7384e-4,
  ];
  expected.forEach((f, i) => expect(Math.abs(frequencies[30 + i] / f - 1)).toBeLessThan(5e-5));
  for (let r = 0; r <= 30; r++) expect(frequencies[r]).toBeCloseTo(10_000 ** (-r / 64), 14);
  for (let r = 41; r < 64; r++) expect(frequencies[r]).toBeCloseTo(10_000 ** (-r / 64) / 10, 14);
});

test('Llama-3.2: factor 32 over theta 500,000', () => {
  const { frequencies } = new Rope({
    headDim: 64,
    theta: 500_000,
    scaling: {
      type: 'llama3',
      factor: 32,
      lowFreqFactor: 1,
      highFreqFactor: 4,
      originalContext: 8192,
    },
  });
  for (const [r, f] of frequencies.entries()) {
    const plain = 500_000 ** (-r / 32);
    const wavelength = (2 * Math.PI) / plain;
    if (wavelength < 8192 / 4) expect(f).toBeCloseTo(plain, 14);
    else if (wavelength > 8192) expect(f / (plain / 32)).toBeCloseTo(1, 12);
    else {
      const smooth = (8192 / wavelength - 1) / 3;
      expect(f / ((1 - smooth) * (plain / 32) + smooth * plain)).toBeCloseTo(1, 12);
    }
  }
});

/** gpt-oss's, whose range is not rounded, and the same rounded; figures of transformers. */
test.each([
  [false, [0.0317057, 0.019335, 0.0010526, 0.000129319]],
  [true, [0.0316208, 0.019451, 0.00120613, 0.000227948]],
])('YaRN, truncated %p', (truncate, expected) => {
  const attentionFactor = 1.25;
  const rope = new Rope({
    headDim: 64,
    theta: 150_000,
    scaling: {
      type: 'yarn',
      factor: 32,
      betaFast: 32,
      betaSlow: 1,
      originalContext: 4096,
      truncate,
      attentionFactor,
    },
  });
  [9, 10, 15, 17].forEach((r, i) => {
    expect(Math.abs(rope.frequencies[r] / expected[i] - 1)).toBeLessThan(5e-6);
  });
  for (let r = 0; r <= 8; r++) expect(rope.frequencies[r]).toBeCloseTo(150_000 ** (-r / 32), 14);
  for (let r = 18; r < 32; r++) {
    expect((rope.frequencies[r] * 32) / 150_000 ** (-r / 32)).toBeCloseTo(1, 12);
  }
  const x = new Float32Array(64).fill(1);
  rope.apply(x, 1, 1, 5);
  expect(Math.hypot(x[3], x[35])).toBeCloseTo(attentionFactor * Math.SQRT2, 6);
});

test.each<[string, string, Partial<RopeOptions>]>([
  ['OUT_OF_RANGE', 'headDim', { headDim: 0 }],
  ['OUT_OF_RANGE', 'rotaryDim', { rotaryDim: 3 }],
  ['OUT_OF_RANGE', 'rotaryDim', { rotaryDim: 10 }],
  ['OUT_OF_RANGE', 'theta', { theta: 0 }],
  ['NON_FINITE', 'theta', { theta: NaN }],
  ['INVALID_ARGUMENT', 'interleaved', { interleaved: 1 as unknown as boolean }],
  [
    'INVALID_ARGUMENT',
    'scaling.type',
    { scaling: { type: 'dynamic', factor: 2 } as unknown as RopeOptions['scaling'] },
  ],
  ['OUT_OF_RANGE', 'scaling.factor', { scaling: { type: 'linear', factor: -1 } }],
  ['OUT_OF_RANGE', 'scaling.factors.length', { scaling: { type: 'factors', factors: [1, 2] } }],
  ['OUT_OF_RANGE', 'scaling.factors[1]', { scaling: { type: 'factors', factors: [1, 0, 1, 1] } }],
  [
    'OUT_OF_RANGE',
    'scaling.highFreqFactor',
    {
      scaling: {
        type: 'llama3',
        factor: 8,
        lowFreqFactor: 4,
        highFreqFactor: 4,
        originalContext: 64,
      },
    },
  ],
])('%s for %s', (code, argument, options) => {
  expect(() => new Rope({ headDim: 8, ...options })).toThrow(
    expect.objectContaining({ code, argument }),
  );
});

test('an array without room is refused', () => {
  const rope = new Rope({ headDim: 8 });
  expect(() => rope.apply(new Float32Array(31), 2, 2, 0)).toThrow(
    expect.objectContaining({ code: 'BUFFER_TOO_SMALL', argument: 'x' }),
  );
});
