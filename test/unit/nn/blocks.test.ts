/** The parts of decoder blocks against plain float64: layer norm, activations, MLPs, blocks. */
import { KvCache } from '../../../lib';
import {
  AttentionLayer,
  GatedMlp,
  LayerNorm,
  Linear,
  Mlp,
  ParallelBlock,
  RmsNorm,
  Scratch,
  TransformerBlock,
  type Activation,
} from '../../../lib/nn';
import { activate, gate } from '../../../lib/nn/activation';
import { Random } from '../../support/random';
import { normals, tensor } from '../../support/tensors';

const random = new Random(3);
const numbers = (count: number): number[] => Array.from(normals(random, count, 'f32'));
const f32 = (values: number[], shape: number[]) => tensor(values, shape, 'f32') as never;
const linear = (out: number, input: number): Linear =>
  new Linear(f32(numbers(out * input), [out, input]));

function worst(got: ArrayLike<number>, expected: ArrayLike<number>): number {
  let most = 0;
  for (let i = 0; i < expected.length; i++) {
    most = Math.max(most, Math.abs(got[i] - expected[i]) / Math.max(1, Math.abs(expected[i])));
  }
  return most;
}

/** The integral of the normal density by Simpson's rule: another way to the same number. */
function phi(x: number): number {
  const steps = 4000;
  const width = x / steps;
  const density = (t: number): number => Math.exp((-t * t) / 2) / Math.sqrt(2 * Math.PI);
  let sum = density(0) + density(x);
  for (let i = 1; i < steps; i++) sum += (i % 2 === 0 ? 2 : 4) * density(i * width);
  return 0.5 + (sum * width) / 3;
}

it.each<[Activation, (x: number) => number]>([
  ['silu', (x) => x / (1 + Math.exp(-x))],
  ['gelu', (x) => x * phi(x)],
  ['gelu_tanh', (x) => x / (1 + Math.exp(-2 * Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)))],
  ['relu', (x) => (x > 0 ? x : 0)],
])('%s', (activation, oracle) => {
  const values = [-8, -3.3, -2.9, -1, -0.1, 0, 1e-4, 0.5, 1, 2.99, 3.01, 5, 7.5];
  const x = Float32Array.from(values);
  activate(x, x.length, activation);
  expect(worst(x, values.map(Math.fround).map(oracle))).toBeLessThan(1e-6);
  const gates = Float32Array.from(values);
  gate(gates, new Float32Array(values.length).fill(-2), values.length, activation);
  expect(
    worst(
      gates,
      values.map((v) => -2 * oracle(v)),
    ),
  ).toBeLessThan(1e-6);
});

it('swiglu_oai clamps both sides', () => {
  const gates = Float32Array.of(9, 7, -20, 0.5);
  gate(gates, Float32Array.of(10, -10, 1, 2), 4, 'swiglu_oai');
  const at = (g: number, u: number): number => (g / (1 + Math.exp(-1.702 * g))) * (u + 1);
  expect(worst(gates, [at(7, 7), at(7, -7), at(-20, 1), at(0.5, 2)])).toBeLessThan(1e-6);
});

it('LayerNorm has mean 0 and variance 1 before its weight and bias', () => {
  const dim = 37;
  const [weight, bias, x] = [numbers(dim), numbers(dim), numbers(3 * dim)];
  const norm = new LayerNorm(f32(weight, [dim]), f32(bias, [dim]), 1e-5);
  const got = norm.forward(tensor(x, [3, dim], 'f32'));
  const expected = x.map((_, at) => {
    const row = x.slice(at - (at % dim), at - (at % dim) + dim);
    const mean = row.reduce((a, b) => a + b) / dim;
    const variance = row.reduce((sum, v) => sum + (v - mean) ** 2, 0) / dim;
    return ((x[at] - mean) / Math.sqrt(variance + 1e-5)) * weight[at % dim] + bias[at % dim];
  });
  expect(worst(got.data, expected)).toBeLessThan(1e-5);
  expect(got.shape).toEqual([3, dim]);
});

describe('blocks', () => {
  const hidden = 24;
  const rows = 5;
  const scratch = new Scratch(8);
  const norm = () => new RmsNorm(f32(numbers(hidden), [hidden]), 1e-5);
  const make = () => ({
    attention: new AttentionLayer({
      headDim: 6,
      norm: norm(),
      query: linear(36, hidden),
      key: linear(12, hidden),
      value: linear(12, hidden),
      output: linear(hidden, 36),
      rope: null,
      outputNorm: new LayerNorm(f32(numbers(hidden), [hidden]), null, 1e-5),
    }),
    mlp: new Mlp({
      norm: norm(),
      up: linear(40, hidden),
      down: linear(hidden, 40),
      activation: 'gelu',
    }),
  });
  const cache = new KvCache({ layers: 1, kvHeads: 2, headDim: 6, capacity: 64, sequences: 2 });
  const step = () => cache.step([{ sequence: cache.sequence(), tokens: rows }]);
  const tokens = () => ({ rows, step: step(), scratch });
  const added = (
    part: { addTo: AttentionLayer['addTo'] },
    x: Float32Array,
    to: Float32Array,
  ): Float32Array => {
    const out = to.slice();
    part.addTo(out, x, tokens(), 0);
    for (const sequence of cache.liveSequences) sequence.dispose();
    return out;
  };

  it('TransformerBlock adds the MLP of what attention made, ParallelBlock of what came in', () => {
    const { attention, mlp } = make();
    const x = Float32Array.from(numbers(rows * hidden));
    const attended = added(attention, x, x);
    const serial = x.slice();
    new TransformerBlock(hidden, attention, mlp).forward(serial, tokens(), 0);
    for (const sequence of cache.liveSequences) sequence.dispose();
    expect(worst(serial, added(mlp, attended, attended))).toBeLessThan(1e-6);
    const parallel = x.slice();
    new ParallelBlock(hidden, attention, mlp).forward(parallel, tokens(), 0);
    for (const sequence of cache.liveSequences) sequence.dispose();
    expect(worst(parallel, added(mlp, x, attended))).toBeLessThan(1e-6);
    expect(worst(parallel, serial)).toBeGreaterThan(1e-3);
  });

  it('a gated MLP is down(act(gate) * up) of the normed input', () => {
    const parts = { gate: linear(40, hidden), up: linear(40, hidden), down: linear(hidden, 40) };
    const inputNorm = norm();
    const mlp = new GatedMlp({ ...parts, norm: inputNorm, activation: 'gelu_tanh' });
    const x = Float32Array.from(numbers(rows * hidden));
    const normed = inputNorm.forward(tensor([...x], [rows, hidden], 'f32'));
    const gates = parts.gate.forward(normed).data.slice();
    gate(gates, parts.up.forward(normed).data, gates.length, 'gelu_tanh');
    const expected = parts.down.forward(tensor([...gates], [rows, 40], 'f32')).data;
    expect(worst(added(mlp, x, new Float32Array(x.length)), expected)).toBeLessThan(1e-5);
    mlp.dispose();
    expect(mlp.bytes).toBe(inputNorm.bytes);
  });
});
