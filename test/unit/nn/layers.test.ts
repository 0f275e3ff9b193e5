/** Linear, RmsNorm and Embedding as layers: shapes, dtypes, errors. Their arithmetic is in the conformance suite. */
import { Tensor } from '../../../lib';
import { Embedding, Linear, RmsNorm } from '../../../lib/nn';
import { linearOracle, rmsNormOracle } from '../../oracle';
import { randomBlocks } from '../../support/blocks';
import { expectClose } from '../../support/compare';
import { roundToDtype } from '../../support/numbers';
import { Random } from '../../support/random';
import { normals, tensor } from '../../support/tensors';
import { LINEAR, RMS_NORM } from '../../tolerances';

type FloatTensor = Tensor<'f32' | 'f16' | 'bf16'>;
const weights = (values: number[], shape: number[], dtype: 'f32' | 'f16' | 'bf16') =>
  tensor(values, shape, dtype) as FloatTensor;
const code = (name: string, argument?: string) =>
  expect.objectContaining(argument === undefined ? { code: name } : { code: name, argument });

describe.each(['f32', 'f16', 'bf16'] as const)('%s', (dtype) => {
  test.each([
    [1, 1, [1]],
    [3, 5, [2, 3]],
    [17, 31, [4]],
    [50, 7, [2, 2, 2]],
    [33, 65, [0, 3]],
  ])('Linear, %i outputs of %i inputs', (out, input, leading) => {
    const random = new Random(out * 100 + input);
    const tokens = leading.reduce((a, b) => a * b, 1);
    const w = normals(random, out * input, dtype);
    const b = normals(random, out, dtype);
    const x = normals(random, tokens * input, dtype);
    const layer = new Linear(weights(w, [out, input], dtype), weights(b, [out], dtype));
    const y = layer.forward(tensor(x, [...leading, input], dtype));
    expect([y.dtype, ...y.shape]).toEqual(['f32', ...leading, out]);
    const size = linearOracle(x.map(Math.abs), w.map(Math.abs), b.map(Math.abs), out, input);
    const relative = (values: ArrayLike<number>) =>
      Array.from(values, (v, i) => v / Math.max(1, size[i]));
    expectClose('y', relative(y.data), relative(linearOracle(x, w, b, out, input)), LINEAR);
    expect(layer.bytes).toBeGreaterThanOrEqual(out * input * (dtype === 'f32' ? 4 : 2));
    layer.dispose();
    layer.dispose();
    expect(layer.bytes - out * 4).toBe(0);
    expect(() => layer.forward(tensor(x, [...leading, input], dtype))).toThrow(code('DISPOSED'));
  });

  test('RmsNorm', () => {
    const random = new Random(8);
    const w = normals(random, 19, dtype);
    const x = normals(random, 6 * 19, dtype);
    const y = new RmsNorm(weights(w, [19], dtype), 1e-5).forward(tensor(x, [2, 3, 19], dtype));
    expect([y.dtype, ...y.shape]).toEqual(['f32', 2, 3, 19]);
    expectClose('y', y.data, rmsNormOracle(x, w, 1e-5), RMS_NORM);
  });

  test('Embedding looks up any part of the ids', () => {
    const table = new Random(9).normals(7 * 5).map((x) => roundToDtype(x, dtype));
    const embedding = new Embedding(weights(table, [7, 5], dtype));
    const out = new Float32Array(15);
    embedding.apply([6, 0, 3, 3], out, 1, 3);
    const row = (id: number) => table.slice(id * 5, (id + 1) * 5);
    expect(Array.from(out)).toEqual([...row(0), ...row(3), ...row(3)]);
    // Packed layouts pad.
    expect(embedding.bytes).toBeGreaterThanOrEqual(35 * (dtype === 'f32' ? 4 : 2));

    const shared = new Embedding(new Linear(weights(table, [7, 5], dtype)));
    expect(shared.bytes).toBe(0);
    shared.apply([6, 0, 3, 3], out, 1, 3);
    expect(Array.from(out)).toEqual([...row(0), ...row(3), ...row(3)]);
  });
});

describe.each(['q8_0', 'q4_0', 'q4_1'] as const)('blocks of %s', (dtype) => {
  const random = new Random(12);
  const { bytes, values } = randomBlocks(random, 7 * 3, dtype);
  const matrix = { shape: [7, 96], dtype, data: bytes };

  test('make a linear layer and its embedding', () => {
    const layer = new Linear(matrix);
    const x = normals(random, 2 * 96, 'f32');
    const y = layer.forward(tensor(x, [2, 96], 'f32'));
    const size = linearOracle(x.map(Math.abs), values.map(Math.abs), null, 7, 96);
    const relative = (y: ArrayLike<number>) => Array.from(y, (v, i) => v / Math.max(1, size[i]));
    expectClose('y', relative(y.data), relative(linearOracle(x, values, null, 7, 96)), LINEAR);
    const out = new Float32Array(96);
    new Embedding(layer).apply([5], out);
    expect(Array.from(out, (v) => v + 0)).toEqual(
      Array.from(values.subarray(5 * 96, 6 * 96), (v) => v + 0),
    );
    layer.dispose();
    expect(() => layer.gather(Int32Array.of(0), out, 1)).toThrow(code('DISPOSED'));
  });

  test('that make no matrix', () => {
    const wrong = (change: object) => () => new Linear({ ...matrix, ...change });
    expect(wrong({ shape: [7, 95] })).toThrow(code('INVALID_SHAPE', 'weight'));
    expect(wrong({ shape: [0, 96] })).toThrow(code('INVALID_SHAPE', 'weight'));
    expect(wrong({ shape: [96] })).toThrow(code('INVALID_RANK', 'weight'));
    expect(wrong({ shape: [8, 96] })).toThrow(code('BUFFER_TOO_SMALL', 'weight'));
    expect(wrong({ data: new Float32Array(999) })).toThrow(code('INVALID_ARGUMENT', 'weight'));
    expect(wrong({ dtype: 'q5_0' })).toThrow(code('INVALID_DTYPE', 'weight'));
  });
});

test('layers do not follow later changes of what they were made from', () => {
  const w = new Float32Array([2]);
  const linear = new Linear(Tensor.view(w, [1, 1]), Tensor.view(w, [1]));
  const norm = new RmsNorm(Tensor.view(w, [1]), 1e-6);
  w[0] = 100;
  const x = Tensor.from([3], [1, 1]);
  expect(linear.forward(x).data[0]).toBe(8);
  expect(norm.forward(x).data[0]).toBeCloseTo(2, 5);
});

test('an embedding does not keep the larger buffer that it is a part of', () => {
  const file = new Float32Array(100);
  file[42] = 1;
  const embedding = new Embedding({ shape: [2, 3], dtype: 'f32', data: file.subarray(40, 46) });
  file[42] = 2;
  const out = new Float32Array(3);
  embedding.apply([0], out);
  expect(Array.from(out)).toEqual([0, 0, 1]);
});

test('wrong weights', () => {
  const matrix = Tensor.zeros([4, 3]);
  const i32 = Tensor.zeros([4, 3], 'i32') as unknown as FloatTensor;
  expect(() => new Linear(Tensor.zeros([4]))).toThrow(code('INVALID_RANK', 'weight'));
  expect(() => new Linear(Tensor.zeros([0, 4]))).toThrow(code('INVALID_SHAPE', 'weight'));
  expect(() => new Linear(i32)).toThrow(code('INVALID_DTYPE', 'weight'));
  expect(() => new Linear(null as unknown as FloatTensor)).toThrow(
    code('INVALID_ARGUMENT', 'weight'),
  );
  expect(() => new Linear(matrix, Tensor.zeros([3]))).toThrow(code('INVALID_SHAPE', 'bias'));
  expect(() => new Linear({ shape: [4, 3], dtype: 'f32', data: new Float32Array(11) })).toThrow(
    code('BUFFER_TOO_SMALL', 'weight'),
  );
  expect(() => new RmsNorm(matrix, 1e-5)).toThrow(code('INVALID_RANK', 'weight'));
  expect(() => new RmsNorm(Tensor.zeros([3]), 0)).toThrow(code('OUT_OF_RANGE', 'eps'));
  expect(() => new Embedding(Tensor.zeros([3]))).toThrow(code('INVALID_RANK', 'table'));
  matrix.dispose();
  expect(() => new Linear(matrix)).toThrow(code('DISPOSED', 'weight'));
});

test('wrong inputs', () => {
  const linear = new Linear(Tensor.zeros([4, 3]));
  expect(() => linear.forward(Tensor.zeros([2, 4]))).toThrow(code('INVALID_SHAPE', 'x'));
  expect(() => linear.forward(Tensor.zeros([]))).toThrow(code('INVALID_RANK', 'x'));
  expect(() => linear.forward(Tensor.zeros([2, 3], 'u8'))).toThrow(code('INVALID_DTYPE', 'x'));
  expect(() => linear.apply(new Float32Array(5), new Float32Array(8), 2)).toThrow(
    code('BUFFER_TOO_SMALL', 'x'),
  );
  expect(() => linear.apply(new Float32Array(6), new Float32Array(7), 2)).toThrow(
    code('BUFFER_TOO_SMALL', 'out'),
  );
  const norm = new RmsNorm(Tensor.zeros([3]), 1e-5);
  expect(() => norm.apply(new Float32Array(6), new Float32Array(5), 2)).toThrow(
    code('BUFFER_TOO_SMALL', 'out'),
  );
  const embedding = new Embedding(Tensor.zeros([5, 2]));
  const out = new Float32Array(4).fill(9);
  for (const id of [5, -1, 0.5, NaN]) {
    expect(() => embedding.apply([1, id], out)).toThrow(code('OUT_OF_RANGE', 'ids[1]'));
  }
  expect(() => embedding.apply([1, 2, 3], out)).toThrow(code('BUFFER_TOO_SMALL', 'out'));
  expect(Array.from(out)).toEqual([9, 9, 9, 9]);
});
