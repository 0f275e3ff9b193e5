/** The three products of a linear layer in a step: y = x W^T, gradX = gradY W and gradW = gradY^T x. */
import { getBackend } from '../../lib/backend';
import { f32, rowError, type Subject } from './subject';

interface Layer {
  tokens: number;
  inputs: number;
  outputs: number;
}

/** Of the stories models and of SmolLM2; then an odd one. */
const LAYERS: readonly Layer[] = [
  { tokens: 3072, inputs: 192, outputs: 512 },
  { tokens: 2048, inputs: 576, outputs: 1536 },
  { tokens: 1000, inputs: 321, outputs: 77 },
];

/** Transposes into the same memory with every call, as a trainer does. */
function transposer(x: Float32Array, rows: number, columns: number): () => Float32Array {
  const out = new Float32Array(x.length);
  return () => {
    getBackend().transpose({ x, out, rows, columns });
    return out;
  };
}

/** out [m, n] = a [m, k] b [n, k]^T; b is packed first, as weights are that change with every step. */
function multiply(a: Float32Array, b: Float32Array, m: number, n: number, out: Float32Array): void {
  const columns = b.length / n;
  const weights = getBackend().packWeights({ weight: b, dtype: 'f32', rows: n, columns });
  getBackend().linear({ x: a, weights, bias: null, out, tokens: m });
  weights.dispose();
}

/** Some rows of out [m, n] = a b, where element (i, l) of a is a(i, l) and element (l, j) of b is b(l, j). */
function productError(
  out: Float32Array,
  [m, k, n]: [number, number, number],
  a: (i: number, l: number) => number,
  b: (l: number, j: number) => number,
): number {
  const rows = [0, Math.floor(m / 2), m - 1].map((i) => {
    const expected = new Float64Array(n);
    for (let l = 0; l < k; l++) {
      const x = a(i, l);
      for (let j = 0; j < n; j++) expected[j] += x * b(l, j);
    }
    return rowError(out, i * n, expected);
  });
  return Math.max(...rows);
}

export function linearSubjects(): Subject[] {
  return LAYERS.flatMap(({ tokens, inputs, outputs }) => {
    const [x, w] = [f32(tokens * inputs, 1), f32(outputs * inputs, 2)];
    const gradY = f32(tokens * outputs, 3);
    const y = new Float32Array(tokens * outputs);
    const [gradX, gradW] = [new Float32Array(x.length), new Float32Array(w.length)];
    const name = `linear ${tokens} x ${inputs} to ${outputs}`;
    const flop = 2 * tokens * inputs * outputs;
    const acrossW = transposer(w, outputs, inputs);
    const [acrossX, acrossGrad] = [
      transposer(x, tokens, inputs),
      transposer(gradY, tokens, outputs),
    ];
    const xAt = (i: number, l: number) => x[i * inputs + l];
    const gradAt = (i: number, l: number) => gradY[i * outputs + l];
    return [
      {
        name: `${name}, y`,
        flop,
        run: () => multiply(x, w, tokens, outputs, y),
        error: () => productError(y, [tokens, inputs, outputs], xAt, (l, j) => w[j * inputs + l]),
      },
      {
        name: `${name}, gradX`,
        flop,
        run: () => multiply(gradY, acrossW(), tokens, inputs, gradX),
        error: () =>
          productError(gradX, [tokens, outputs, inputs], gradAt, (l, j) => w[l * inputs + j]),
      },
      {
        name: `${name}, gradW`,
        flop,
        run: () => multiply(acrossGrad(), acrossX(), outputs, inputs, gradW),
        error: () => productError(gradW, [outputs, tokens, inputs], (i, l) => gradAt(l, i), xAt),
      },
    ];
  });
}
