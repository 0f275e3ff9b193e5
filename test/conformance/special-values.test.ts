/** NaN and Infinity: visible ones reach the rows that see them, hidden and unwritten ones reach nothing. */
import { attention, KvCache } from '../../lib';
import { attentionOracle } from '../oracle';
import {
  attentionCase,
  attentionInputs,
  checkAttention,
  compareWithOracle,
  type AttentionCase,
  type AttentionInputs,
} from '../support/attention-case';
import { toNumbers } from '../support/compare';
import { encodeSmall } from '../support/numbers';
import { emptyOut, tensor, type FloatTensor, type WithLse } from '../support/tensors';

const DTYPES = ['f32', 'f16', 'bf16'] as const;
const POISONS = [NaN, Infinity, -Infinity];

/** Overwrites every element of token j. */
function poison(t: FloatTensor, token: number, value: number): void {
  const [batch, tokens, heads, dim] = t.shape;
  const { data } = t;
  const bits = t.dtype === 'f32' ? value : encodeSmall(value, t.dtype);
  for (let b = 0; b < batch; b++) {
    const from = (b * tokens + token) * heads * dim;
    data.fill(bits, from, from + heads * dim);
  }
}

function run({ q, k, v, options }: AttentionInputs): WithLse {
  return attention(q, k, v, { ...options, returnLse: true });
}

/** The rows [queryTokens] of `out`, all finite or not. */
function finiteRows(c: AttentionCase, t: FloatTensor): boolean[] {
  const numbers = toNumbers(t.data, t.dtype);
  const width = numbers.length / c.batch / c.queryTokens;
  return Array.from({ length: c.batch * c.queryTokens }, (_, row) =>
    numbers.slice(row * width, (row + 1) * width).every(Number.isFinite),
  );
}

describe.each(DTYPES)('%s', (dtype) => {
  const prefill = attentionCase({
    dtype,
    queryTokens: 40,
    keyTokens: 70,
    causal: true,
    headDim: 20,
    valueDim: 20,
    group: 3,
  });
  const decode = { ...prefill, queryTokens: 1, keyTokens: 133 };
  const precision = 'fast' as const;

  describe.each(POISONS)('%p', (value) => {
    test.each([
      ['the future', prefill, {}, [66, 69]],
      ['the past of a window', { ...prefill, window: 6 }, {}, [0, 3, 10]],
      ['between sinks and window', { ...decode, window: 20, sinkTokens: 2 }, {}, [2, 64, 100, 112]],
      ['the past of a window, fast', { ...prefill, window: 6, precision }, {}, [0, 3, 10]],
    ])('in keys and values hidden in %s', (_, c, __, tokens) => {
      const inputs = attentionInputs(c);
      const clean = attentionOracle(inputs.oracle);
      for (const token of tokens) {
        poison(inputs.k, token, value);
        poison(inputs.v, token, value);
      }
      const { out, lse } = run(inputs);
      // Rows that see a poisoned token are not finite; all others are as if it were not there.
      const sees = Array.from({ length: c.queryTokens }, (_row, i) =>
        tokens.some((j) => {
          const p = i + c.keyTokens - c.queryTokens;
          return j <= p && (j > p - (c.window ?? Infinity) || j < (c.sinkTokens ?? 0));
        }),
      );
      expect(finiteRows(c, out)).toEqual(sees.map((s) => !s));
      const width = out.data.length / c.queryTokens;
      const rows = (x: number[], w: number) => x.filter((_x, at) => !sees[Math.floor(at / w)]);
      expect(rows(toNumbers(out.data, dtype), width)).toHaveLength(
        width * sees.filter((s) => !s).length,
      );
      sees.forEach((seen, i) => {
        if (!seen) return;
        out.data.fill(0, i * width, (i + 1) * width);
        clean.out.fill(0, i * width, (i + 1) * width);
        lse.data.fill(
          0,
          (i * lse.data.length) / c.queryTokens,
          ((i + 1) * lse.data.length) / c.queryTokens,
        );
        clean.lse.fill(
          0,
          (i * lse.data.length) / c.queryTokens,
          ((i + 1) * lse.data.length) / c.queryTokens,
        );
      });
      compareWithOracle('the other rows', { out, lse }, clean, dtype, c.precision);
    });

    test('in keys and values hidden by a mask', () => {
      for (const c of [prefill, decode, { ...decode, causal: false }, { ...prefill, precision }]) {
        const inputs = attentionInputs({ ...c, mask: 'random' });
        const hidden = [0, 5, 17, 63, 64, c.keyTokens - 1];
        const mask = inputs.options.mask!.data;
        hidden.forEach((j) => {
          for (let i = 0; i < c.queryTokens; i++) mask[i * c.keyTokens + j] = 0;
          poison(inputs.k, j, value);
          poison(inputs.v, j, value);
        });
        inputs.oracle.mask = { data: mask, batch: 1, heads: 1 };
        compareWithOracle(
          'masked',
          run(inputs),
          attentionOracle(inputs.oracle),
          dtype,
          c.precision,
        );
      }
    });

    test('in a visible value reaches every row that sees it', () => {
      for (const c of [prefill, decode]) {
        const inputs = attentionInputs(c);
        poison(inputs.v, 3, value);
        const { out, lse } = run(inputs);
        const numbers = toNumbers(out.data, dtype);
        // Every row sees token 3; a weighted sum with an infinity is that infinity.
        expect(numbers.filter((x) => !Object.is(x, value))).toEqual([]);
        expect(toNumbers(lse.data, 'f32').every(Number.isFinite)).toBe(true);
      }
    });

    test('in one row of q stays in that row', () => {
      const c = { ...prefill, causal: false };
      const inputs = attentionInputs(c);
      poison(inputs.q, 7, value);
      const finite = finiteRows(c, run(inputs).out);
      expect(finite.map((f, i) => (f ? -1 : i)).filter((i) => i >= 0)).toEqual([7]);
    });
  });

  test('NaN in a visible key makes the row NaN, LSE too', () => {
    for (const c of [
      prefill,
      decode,
      { ...prefill, softcap: 5 },
      { ...decode, sinkLogits: true },
    ]) {
      const inputs = attentionInputs(c);
      poison(inputs.k, 3, NaN);
      const { out, lse } = run(inputs);
      expect(toNumbers(out.data, dtype).every(Number.isNaN)).toBe(true);
      expect(toNumbers(lse.data, 'f32').every(Number.isNaN)).toBe(true);
    }
  });

  test('NaN in a visible value whose weight has vanished still makes the row NaN', () => {
    for (const c of [prefill, decode, { ...decode, causal: false }]) {
      const inputs = attentionInputs({ ...c, bias: 'plain' });
      const bias = inputs.options.bias!.data;
      for (let i = 0; i < c.queryTokens; i++) bias[i * c.keyTokens + 3] = -500;
      poison(inputs.v, 3, NaN);
      const { out } = run(inputs);
      expect(toNumbers(out.data, dtype).every(Number.isNaN)).toBe(true);
    }
  });

  test('scores that rise or fall by hundreds from key to key', () => {
    for (const c of [prefill, decode]) {
      for (const step of [0.5, 15, 200, -0.5, -15, -200]) {
        const inputs = attentionInputs({ ...c, bias: 'plain' });
        const bias = inputs.options.bias!.data;
        for (let i = 0; i < bias.length; i++) bias[i] = (i % c.keyTokens) * step;
        inputs.oracle.bias = { data: Array.from(bias), batch: 1, heads: 1 };
        compareWithOracle(`step ${step}`, run(inputs), attentionOracle(inputs.oracle), dtype);
      }
    }
  });

  test('NaN in the bias of a visible key makes the row NaN', () => {
    const inputs = attentionInputs({ ...prefill, bias: 'plain' });
    const bias = inputs.options.bias!.data;
    bias[5 * prefill.keyTokens + 2] = NaN;
    const finite = finiteRows(prefill, run(inputs).out);
    expect(finite.map((f, i) => (f ? -1 : i)).filter((i) => i >= 0)).toEqual([5]);
  });

  test('NaN and Infinity in the bias of a hidden key reach nothing', () => {
    const inputs = attentionInputs({ ...prefill, bias: 'plain' });
    const bias = inputs.options.bias!.data;
    for (let i = 0; i < prefill.queryTokens; i++) {
      for (let j = i + 31; j < prefill.keyTokens; j++) {
        bias[i * prefill.keyTokens + j] = [NaN, Infinity, -Infinity][j % 3];
      }
    }
    compareWithOracle('out', run(inputs), attentionOracle(inputs.oracle), dtype);
  });

  test('whole rows of -Infinity scores give zeros, never NaN', () => {
    const { oracle, ...inputs } = attentionInputs({ ...prefill, bias: 'plain' });
    inputs.options.bias!.data.fill(-Infinity);
    const { out, lse } = run({ oracle, ...inputs });
    expect(toNumbers(out.data, dtype).every((x) => x === 0)).toBe(true);
    expect(toNumbers(lse.data, 'f32').every((x) => x === -Infinity)).toBe(true);
  });

  test('what an evicted or truncated token left in the cache reaches nothing', () => {
    const cache = new KvCache({
      layers: 1,
      kvHeads: 2,
      headDim: 16,
      dtype,
      capacity: 80,
      window: 20,
      sinkTokens: 2,
    });
    const sequence = cache.sequence();
    const append = (tokens: number, value: number) => {
      const row = tensor(new Array(tokens * 32).fill(value), [tokens, 2, 16], dtype);
      sequence.append(0, row, row);
    };
    const q = tensor(new Array(4 * 16).fill(0.5), [1, 1, 4, 16], dtype);
    append(3, 1);
    append(70, NaN);
    sequence.truncate(40);
    append(1, NaN);
    sequence.truncate(40);
    append(19, 1);
    // The row at the end sees 19 clean tokens and one NaN; after one more, clean ones alone.
    expect(toNumbers(attention(q, sequence.layer(0)).data, dtype).every(Number.isNaN)).toBe(true);
    append(1, 1);
    expect(toNumbers(attention(q, sequence.layer(0)).data, dtype).every((x) => x === 1)).toBe(true);
  });

  test('what was in `out` before reaches nothing', () => {
    for (const c of [prefill, decode, { ...prefill, mask: 'hidden row' as const }]) {
      const inputs = attentionInputs(c);
      const out = emptyOut([1, c.queryTokens, 6, 20], dtype);
      out.data.fill(dtype === 'f32' ? NaN : 0x7fff);
      const result = run({ ...inputs, options: { ...inputs.options, out } });
      compareWithOracle('out', result, attentionOracle(inputs.oracle), dtype);
    }
  });
});

test('large finite values stay finite and right', () => {
  const c = attentionCase({ queryTokens: 20, keyTokens: 90, causal: true });
  const inputs = attentionInputs(c);
  for (const t of [inputs.v]) t.data.forEach((x, i) => (t.data[i] = Math.fround(x * 1e30)));
  inputs.oracle.v = Array.from(inputs.v.data);
  compareWithOracle('out', run(inputs), attentionOracle(inputs.oracle), 'f32');
  checkAttention({ ...c, sharpness: 1e4 });
});

test('denormal numbers are computed with, and the process keeps its own rounding', () => {
  const c = attentionCase({ queryTokens: 20, keyTokens: 90, causal: true });
  checkAttention({ ...c, sharpness: 1e-30 });
  const tiny = Number.MIN_VALUE * 8;
  expect(tiny / 2).toBe(Number.MIN_VALUE * 4);
  expect(Math.fround(2 ** -149) * 1).toBe(2 ** -149);
});
