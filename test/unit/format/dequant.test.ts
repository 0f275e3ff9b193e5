import { GGML_TYPES } from '../../../lib/format/ggml-types';
import { DEQUANT_VECTORS } from './dequant-vectors';

function bytesOf(base64: string): Uint8Array {
  return new Uint8Array(Buffer.from(base64, 'base64'));
}

describe('dequantisation of ggml blocks', () => {
  it.each(DEQUANT_VECTORS)('$type equals gguf-py bit by bit', ({ type, blocks, values }) => {
    const row = [...GGML_TYPES.values()].find(({ name }) => name === type)!;
    const expected = new Float32Array(bytesOf(values).buffer);
    const input = bytesOf(blocks);
    expect(input.length / row.blockBytes).toBe(expected.length / row.blockSize);
    const out = new Float32Array(expected.length);
    row.dequantize!(input, out);
    expect([...out]).toEqual([...expected]);
  });

  it('covers every type that can be widened', () => {
    const widened = [...GGML_TYPES.values()].flatMap((t) => (t.dequantize ? t.name : []));
    expect(DEQUANT_VECTORS.map(({ type }) => type).sort()).toEqual(widened.sort());
  });

  it('has the formula of Q4_0: y = d (q - 8), low halves first', () => {
    const block = new Uint8Array(18);
    block.set([0x00, 0x38]); // d = 0.5
    for (let i = 0; i < 16; i++) block[2 + i] = i | ((15 - i) << 4);
    const out = new Float32Array(32);
    [...GGML_TYPES.values()].find(({ name }) => name === 'Q4_0')!.dequantize!(block, out);
    const expected = Array.from({ length: 32 }, (_, i) => 0.5 * ((i < 16 ? i : 31 - i) - 8));
    expect([...out]).toEqual(expected);
  });

  it('turns infinite scales and NaN into what IEEE says, not into errors', () => {
    const block = new Uint8Array(34);
    block.set([0x00, 0x7c, 1, 0xff, 0]); // d = Infinity, q = 1, -1, 0 ...
    const out = new Float32Array(32);
    [...GGML_TYPES.values()].find(({ name }) => name === 'Q8_0')!.dequantize!(block, out);
    expect([...out.subarray(0, 3)]).toEqual([Infinity, -Infinity, NaN]);
  });
});
