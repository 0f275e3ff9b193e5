import { gguf } from '@huggingface/gguf';
import fc from 'fast-check';
import { GqaError } from '../../../lib/core/errors';
import { GgufFile } from '../../../lib/format/gguf';
import {
  entry,
  floats,
  GGUF_TYPE,
  ggufBytes,
  stringArray,
  temporaryFolder,
  text,
  u32,
  u64,
  write,
  type GgufParts,
  type GgufTensor,
} from './build-files';

const path = temporaryFolder();

const ROW: GgufTensor = { name: 'a', dims: [3, 2], type: 0, data: floats([1, 2, 3, 4, 5, 6]) };
/** One Q8_0 block: d = 1, q = 0 .. 31. */
const BLOCK: GgufTensor = {
  name: 'q',
  dims: [32],
  type: 8,
  data: Buffer.from([0x00, 0x3c, ...Array.from({ length: 32 }, (_, i) => i)]),
};
const GOOD: GgufParts = {
  entries: [
    entry('general.architecture', GGUF_TYPE.string, text('llama')),
    entry('llama.block_count', GGUF_TYPE.u32, u32(6)),
    entry('big', GGUF_TYPE.u64, u64(2n ** 63n)),
    entry('flag', GGUF_TYPE.bool, Buffer.from([1])),
    entry('words', GGUF_TYPE.array, stringArray(['ä', '', 'Ġb'])),
    entry(
      'scores',
      GGUF_TYPE.array,
      Buffer.concat([u32(GGUF_TYPE.f32), u64(2), floats([0.5, -1])]),
    ),
  ],
  tensors: [ROW, BLOCK, { name: 'h', dims: [2], type: 30, data: Buffer.from([0x80, 0x3f, 0, 0]) }],
};

function open(parts: GgufParts): GgufFile {
  return new GgufFile(write(path('x.gguf'), ggufBytes(parts)));
}

function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof GqaError) return error.code;
    throw error;
  }
  return 'none';
}

describe('GgufFile', () => {
  it('reads metadata and tensors', () => {
    const file = open(GOOD);
    expect(Object.fromEntries(file.metadata)).toEqual({
      'general.architecture': 'llama',
      'llama.block_count': 6,
      big: 2n ** 63n,
      flag: true,
      words: ['ä', '', 'Ġb'],
      scores: [0.5, -1],
    });
    expect(file.read('a')).toEqual({
      shape: [2, 3],
      dtype: 'f32',
      data: new Float32Array([1, 2, 3, 4, 5, 6]),
    });
    expect([...file.read('q').data]).toEqual(Array.from({ length: 32 }, (_, i) => i));
    const stored = file.readStored('q');
    expect([stored.dtype, stored.data.length, stored.data[33]]).toEqual(['q8_0', 34, 31]);
    expect(file.readStored('a')).toEqual(file.read('a'));
    expect(file.read('h')).toEqual({
      shape: [2],
      dtype: 'bf16',
      data: new Uint16Array([0x3f80, 0]),
    });
    expect(codeOf(() => file.read('none'))).toBe('INVALID_FILE');
    file.close();
  });

  it('agrees with @huggingface/gguf on a good file', async () => {
    const file = open(GOOD);
    const theirs = await gguf(file.path, { allowLocalFile: true });
    expect(theirs.metadata).toMatchObject(Object.fromEntries(file.metadata));
    expect(theirs.tensorInfos.length).toBe(file.tensors.size);
    for (const info of theirs.tensorInfos) {
      const ours = file.tensors.get(info.name)!;
      expect(ours.offset).toBe(Number(theirs.tensorDataOffset + info.offset));
      expect(ours.shape).toEqual(info.shape.map(Number).reverse());
    }
    file.close();
  });

  it('honours general.alignment', () => {
    const entries = [entry('general.alignment', GGUF_TYPE.u32, u32(128))];
    const file = open({ entries, tensors: [ROW, BLOCK], alignment: 128 });
    expect(file.tensors.get('q')!.offset % 128).toBe(0);
    expect([...file.read('a').data]).toEqual([1, 2, 3, 4, 5, 6]);
    file.close();
  });

  const alignment = (value: number): GgufParts => ({
    entries: [entry('general.alignment', GGUF_TYPE.u32, u32(value))],
    tensors: [ROW],
  });
  const level = Buffer.concat([u32(GGUF_TYPE.array), u64(1)]);
  const nested = (depth: number): Buffer =>
    Buffer.concat([...Array<Buffer>(depth).fill(level), u32(0)]);

  it.each<[string, GgufParts]>([
    ['another magic number', { magic: 'GGML' }],
    ['2^60 keys', { keyCount: 2n ** 60n }],
    ['2^64 - 1 tensors', { tensorCount: 2n ** 64n - 1n }],
    ['more keys than there are', { keyCount: 9 }],
    ['more tensors than there are', { tensorCount: 9 }],
    ['a key of 2^60 bytes', { keyCount: 1, entries: [u64(2n ** 60n)] }],
    ['a key of 2^23 bytes that are not there', { keyCount: 1, entries: [u64(2 ** 23)] }],
    ['text that is no UTF-8', { entries: [entry('k', 8, text(Buffer.from([0xc3, 0x28])))] }],
    ['an unknown metadata type', { entries: [entry('k', 13, u64(0))] }],
    ['a boolean of 2', { entries: [entry('k', GGUF_TYPE.bool, Buffer.from([2]))] }],
    ['an array of 2^62', { entries: [entry('k', 9, Buffer.concat([u32(0), u64(2n ** 62n)]))] }],
    [
      'an array of 2^22 that are not there',
      { entries: [entry('k', 9, Buffer.concat([u32(8), u64(2 ** 22)]))] },
    ],
    ['an array of an unknown type', { entries: [entry('k', 9, Buffer.concat([u32(99), u64(1)]))] }],
    ['nested arrays', { entries: [entry('k', 9, nested(50_000))] }],
    ['a key twice', { entries: [entry('k', 4, u32(1)), entry('k', 4, u32(1))] }],
    ['a tensor name twice', { tensors: [ROW, ROW] }],
    ['no dimensions', { tensors: [{ ...ROW, dims: [] }] }],
    ['five dimensions', { tensors: [{ ...ROW, dims: [6, 1, 1, 1, 1] }] }],
    ['2^64 - 1 columns', { tensors: [{ ...ROW, dims: [2n ** 64n - 1n] }] }],
    ['sizes whose product wraps', { tensors: [{ ...ROW, dims: [2n ** 40n, 2n ** 40n] }] }],
    ['rows that are no whole blocks', { tensors: [{ ...BLOCK, dims: [31] }] }],
    ['an unknown tensor type', { tensors: [{ ...ROW, type: 4 }] }],
    ['tensor type 2^32 - 1', { tensors: [{ ...ROW, type: 2 ** 32 - 1 }] }],
    ['a tensor that ends after the file', { tensors: [{ ...ROW, dims: [300] }] }],
    ['an offset after the file', { tensors: [{ ...ROW, offset: 4096 }] }],
    ['an offset of 2^63', { tensors: [{ ...ROW, offset: 2n ** 63n }] }],
    ['a misaligned offset', { tensors: [{ ...ROW, offset: 4 }] }],
    ['tensors that overlap', { tensors: [ROW, { ...BLOCK, offset: 0 }] }],
    ['alignment 0', alignment(0)],
    ['alignment 24', alignment(24)],
    ['alignment 2^31', alignment(2 ** 31)],
  ])('refuses %s', (_, parts) => {
    expect(codeOf(() => open(parts))).toBe('INVALID_FILE');
  });

  it('refuses an alignment that is text', () => {
    const entries = [entry('general.alignment', GGUF_TYPE.string, text('32'))];
    expect(codeOf(() => open({ entries }))).toBe('INVALID_FILE');
  });

  it('names a type that it knows but cannot widen', () => {
    const file = open({ tensors: [{ name: 'i', dims: [2], type: 26, data: Buffer.alloc(8) }] });
    expect(codeOf(() => file.read('i'))).toBe('UNSUPPORTED_MODEL');
    file.close();
  });

  it.each([0, 1, 4, 0x03000000])('refuses version %d', (version) => {
    expect(codeOf(() => open({ version }))).toBe('UNSUPPORTED_MODEL');
  });

  it('refuses every truncation of a good file', () => {
    const good = ggufBytes(GOOD);
    // The last tensor's bytes end before the padding does.
    const end = good.length - 28;
    for (let length = 0; length < end; length++) {
      const file = write(path('cut'), good.subarray(0, length));
      expect(codeOf(() => new GgufFile(file))).toBe('INVALID_FILE');
    }
    expect(codeOf(() => new GgufFile(write(path('cut'), good.subarray(0, end))).close())).toBe(
      'none',
    );
  });

  it('never throws anything but GqaError, whatever bytes change or are missing', () => {
    const good = ggufBytes(GOOD);
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { maxLength: 4 }),
        fc.oneof(fc.constant(good.length), fc.nat(good.length)),
        (changes, length) => {
          const bytes = Buffer.from(good.subarray(0, length));
          for (const [at, value] of changes) if (at < length) bytes[at] = value;
          const file = write(path('fuzz'), bytes);
          codeOf(() => {
            const open = new GgufFile(file);
            for (const name of open.tensors.keys()) codeOf(() => open.read(name));
            open.close();
          });
        },
      ),
      { numRuns: 2000 },
    );
  });
});
