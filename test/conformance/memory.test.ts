/** Where inputs and outputs may lie: shared memory, views off every alignment, views packed against their neighbours. */
import { attention, Tensor, type FloatDType } from '../../lib';
import { attentionOracle } from '../oracle';
import {
  attentionCase,
  attentionInputs,
  compareWithOracle,
  type AttentionInputs,
} from '../support/attention-case';
import type { FloatTensor } from '../support/tensors';

const DTYPES = ['f32', 'f16', 'bf16'] as const;
type Buffers = (bytes: number) => ArrayBufferLike;

/** A copy of t that begins `elements` elements into a buffer, with `fill` before and behind. */
function moved(t: FloatTensor, elements: number, buffers: Buffers, fill: number): FloatTensor {
  const margin = 64;
  const { data } = t;
  const Kind = data.constructor as Float32ArrayConstructor;
  const whole = new Kind(buffers((data.length + elements + margin) * data.BYTES_PER_ELEMENT));
  whole.fill(fill);
  const view = whole.subarray(elements, elements + data.length);
  view.set(data);
  return Tensor.view<FloatDType>(view, t.shape, t.dtype);
}

function movedInputs(inputs: AttentionInputs, elements: number, buffers: Buffers): AttentionInputs {
  const fill = inputs.q.dtype === 'f32' ? NaN : 0x7fff;
  return {
    ...inputs,
    q: moved(inputs.q, elements, buffers, fill),
    k: moved(inputs.k, elements + 1, buffers, fill),
    v: moved(inputs.v, elements + 2, buffers, fill),
  };
}

describe.each(DTYPES)('%s', (dtype) => {
  const cases = [
    attentionCase({ dtype, queryTokens: 1, keyTokens: 67, headDim: 19, valueDim: 33, group: 3 }),
    attentionCase({
      dtype,
      queryTokens: 21,
      keyTokens: 67,
      headDim: 19,
      valueDim: 33,
      group: 3,
      causal: true,
    }),
  ];

  test.each([0, 1, 2, 3, 5, 7, 15])('views %i elements off, NaN before and behind', (elements) => {
    for (const c of cases) {
      const inputs = movedInputs(attentionInputs(c), elements, (n) => new ArrayBuffer(n));
      const expected = attentionOracle(inputs.oracle);
      const shape = [1, c.queryTokens, 6, 33];
      const count = shape.reduce((a, b) => a * b);
      const Kind = inputs.q.data.constructor as Float32ArrayConstructor;
      const whole = new Kind(count + elements + 40).fill(77);
      const out = Tensor.view<FloatDType>(whole.subarray(elements, elements + count), shape, dtype);
      const result = attention(inputs.q, inputs.k, inputs.v, {
        ...inputs.options,
        out,
        returnLse: true,
      });
      compareWithOracle(`${elements} off`, result, expected, dtype);
      const around = [...whole.subarray(0, elements), ...whole.subarray(elements + count)];
      expect(around.every((x) => x === 77)).toBe(true);
    }
  });

  test('SharedArrayBuffer for every tensor', () => {
    for (const c of cases) {
      const inputs = movedInputs(attentionInputs(c), 1, (n) => new SharedArrayBuffer(n));
      const result = attention(inputs.q, inputs.k, inputs.v, {
        ...inputs.options,
        returnLse: true,
      });
      compareWithOracle('shared', result, attentionOracle(inputs.oracle), dtype);
    }
  });

  test('inputs are not written to', () => {
    for (const c of cases) {
      const inputs = attentionInputs({
        ...c,
        mask: 'random',
        bias: 'plain',
        alibi: true,
        sinkLogits: true,
      });
      const tensors = [inputs.q, inputs.k, inputs.v, ...Object.values(inputs.options)].filter(
        (t): t is Tensor => t instanceof Tensor,
      );
      const before = tensors.map((t) => Array.from(t.data));
      attention(inputs.q, inputs.k, inputs.v, inputs.options);
      tensors.forEach((t, i) => expect(Array.from(t.data)).toEqual(before[i]));
    }
  });

  test('k and v may be the same memory', () => {
    const inputs = attentionInputs({ ...cases[1], valueDim: 19 });
    const result = attention(inputs.q, inputs.k, inputs.k, { ...inputs.options, returnLse: true });
    const oracle = { ...inputs.oracle, v: inputs.oracle.k };
    compareWithOracle('shared k and v', result, attentionOracle(oracle), dtype);
  });
});
