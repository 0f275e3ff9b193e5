/** Packed weights that lie in a mapped file: the same products, bit for bit; and what packed bytes are, by layout number. */
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { getBackend } from '../../lib/backend';
import { WEIGHT_LAYOUT, type PackedFiles, type PackedWeights } from '../../lib/backend/contract';
import type { WeightDType } from '../../lib/core/dtype';
import { randomBlocks } from '../support/blocks';
import { Random } from '../support/random';
import { normals, toBits } from '../support/tensors';

const DTYPES = ['f32', 'f16', 'bf16', 'q8_0', 'q4_0', 'q4_1'] as const;
const SHAPES = [
  [1, 32],
  [67, 96],
  [200, 320],
] as const;
/** SHA-256 of the packed bytes of PINNED, by WEIGHT_LAYOUT: where they change, raise the number and add a row. */
const LAYOUTS: Readonly<Record<number, Readonly<Record<WeightDType, string>>>> = {
  1: {
    f32: '59f0d237052680f4d1abd103c662bd67480d2d10c278e57bfe44b0204c16a4a1',
    f16: '2e6eaf1e4b6b75ea3f954538f719f164a264b3b9fd16acfeb1f860e62aaff700',
    bf16: '4ee0d3e0df83296c68e3c96c0b369c58f67dfe0d8b3e5f98ec1bb6c24b82024d',
    q8_0: '7cb5d2e915ca2fabb0794a1a06872c9048852f3605325234922364c767e9a45d',
    q4_0: '00e526c3e9e7decdc85e59a07b8d93f7fe7b4073dcc7f9105b7c9d172b0c9498',
    q4_1: 'ecc7d0a2cc4699f14dbcfdd791eb55dd4385b105431532eec0d2171fd809f155',
  },
};
const PINNED = [67, 96] as const;

const backend = getBackend();
const files = backend.packedFiles;
const folder = mkdtempSync(join(tmpdir(), 'gqa-packed-'));
afterAll(() => rmSync(folder, { recursive: true }));

function pack(dtype: WeightDType, rows: number, columns: number): PackedWeights {
  const random = new Random(rows * columns);
  const weight =
    dtype === 'f32' || dtype === 'f16' || dtype === 'bf16'
      ? toBits(normals(random, rows * columns, dtype), dtype)
      : randomBlocks(random, (rows * columns) / 32, dtype).bytes;
  return backend.packWeights({ weight, dtype, rows, columns });
}

function bytesOf(weights: PackedWeights, from: PackedFiles): Uint8Array {
  const bytes = new Uint8Array(weights.bytes);
  from.read(weights, bytes, 0);
  return bytes;
}

function product(weights: PackedWeights, tokens: number): Float32Array {
  const x = Float32Array.from(normals(new Random(3), tokens * weights.columns, 'f32'));
  const out = new Float32Array(tokens * weights.rows);
  backend.linear({ x, weights, bias: null, out, tokens });
  return out;
}

if (files === null) {
  test('the JavaScript backend has no packed files', () => expect(backend.info.kind).toBe('js'));
} else {
  describe.each(DTYPES)('%s', (dtype) => {
    test.each(SHAPES)('[%i, %i]: mapped weights are the packed ones', (rows, columns) => {
      const packed = pack(dtype, rows, columns);
      const bytes = bytesOf(packed, files);
      const path = join(folder, `${dtype}-${rows}`);
      const contents = new Uint8Array(128 + bytes.length);
      contents.set(bytes, 128);
      writeFileSync(path, contents);
      const file = files.open(path);
      const place = { offset: 128, dtype, rows, columns };
      const mapped = file.weights(place);
      expect(file.bytes).toBe(contents.length);
      expect(mapped.bytes).toBe(packed.bytes);
      expect(files.checksum(mapped)).toBe(files.checksum(packed));
      for (const wrong of [
        { ...place, offset: 64 + 128 },
        { ...place, offset: 100 },
        { ...place, offset: -64 },
        { ...place, offset: 2 ** 52 },
        { ...place, rows: rows + 64 },
        { ...place, columns: columns + 32 },
        { ...place, rows: 2 ** 40, columns: 2 ** 40 },
        { ...place, rows: 0 },
      ]) {
        expect(() => file.weights(wrong)).toThrow(
          expect.objectContaining({ code: 'INVALID_FILE' }),
        );
      }
      // The weights keep the memory.
      file.dispose();
      for (const tokens of [1, 5, 40]) {
        expect(product(mapped, tokens)).toEqual(product(packed, tokens));
      }
      mapped.dispose();
      expect(() => product(mapped, 1)).toThrow(expect.objectContaining({ code: 'INTERNAL' }));
      packed.dispose();
    });

    test('packed bytes are those of the layout number', () => {
      const weights = pack(dtype, ...PINNED);
      const digest = createHash('sha256').update(bytesOf(weights, files)).digest('hex');
      expect(digest).toBe(LAYOUTS[WEIGHT_LAYOUT][dtype]);
      weights.dispose();
    });
  });

  test('what is no file to map is refused', () => {
    const empty = join(folder, 'empty');
    writeFileSync(empty, '');
    for (const path of [folder, empty, join(folder, 'nothing')]) {
      expect(() => files.open(path)).toThrow(expect.objectContaining({ code: 'INVALID_FILE' }));
    }
  });
}
