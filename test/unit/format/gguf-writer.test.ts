import { gguf } from '@huggingface/gguf';
import { readFileSync } from 'node:fs';
import { GqaError } from '../../../lib/core/errors';
import { GgufFile } from '../../../lib/format/gguf';
import type { GgufEntry } from '../../../lib/format/gguf-value';
import { GgufWriter, type GgufDeclaration } from '../../../lib/format/gguf-writer';
import { temporaryFolder } from './build-files';

const path = temporaryFolder();

const METADATA = new Map<string, GgufEntry>([
  ['general.architecture', { kind: 'string', value: 'llama' }],
  ['a.u8', { kind: 'u8', value: 255 }],
  ['a.i8', { kind: 'i8', value: -128 }],
  ['a.u16', { kind: 'u16', value: 65535 }],
  ['a.i16', { kind: 'i16', value: -32768 }],
  ['a.u32', { kind: 'u32', value: 2 ** 32 - 1 }],
  ['a.i32', { kind: 'i32', value: -(2 ** 31) }],
  ['a.f32', { kind: 'f32', value: Math.fround(1e-5) }],
  ['a.f64', { kind: 'f64', value: 1e-5 }],
  ['a.bool', { kind: 'bool', value: true }],
  ['a.u64', { kind: 'u64', value: 2n ** 64n - 1n }],
  ['a.i64', { kind: 'i64', value: -(2 ** 40) }],
  ['a.text', { kind: 'string', value: 'Ġ é 日本 \u{1f600}' }],
  ['a.heads', { kind: 'u32[]', value: [6, 2, 1] }],
  ['a.floats', { kind: 'f32[]', value: [0.5, -2] }],
  ['a.flags', { kind: 'bool[]', value: [true, false] }],
  ['a.texts', { kind: 'string[]', value: ['', 'Ġ t', '<|end|>'] }],
  ['a.none', { kind: 'i32[]', value: [] }],
]);
const TENSORS: GgufDeclaration[] = [
  { name: 'f', shape: [3], type: 'F32', bytes: 12 },
  { name: 'h', shape: [2, 5], type: 'F16', bytes: 20 },
  { name: 'b', shape: [2, 3, 1], type: 'BF16', bytes: 12 },
  { name: 'q8', shape: [2, 32], type: 'Q8_0', bytes: 68 },
  { name: 'q4', shape: [1, 64], type: 'Q4_0', bytes: 36 },
  { name: 'q6', shape: [256], type: 'Q6_K', bytes: 210 },
];
const bytesOf = ({ bytes }: GgufDeclaration, seed: number) =>
  Uint8Array.from({ length: bytes }, (_, i) => (17 * i + 3 * seed) & 0x3f);

function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof GqaError) return error.code;
    throw error;
  }
  return 'none';
}

function writeAll(name: string, metadata = METADATA): string {
  const writer = new GgufWriter(path(name), metadata, TENSORS);
  TENSORS.map((tensor, i) => [tensor, i] as const)
    .reverse()
    .forEach(([tensor, i]) => {
      const bytes = bytesOf(tensor, i);
      writer.write(tensor.name, bytes.subarray(0, 10));
      writer.write(tensor.name, bytes.subarray(10));
    });
  writer.finish();
  return path(name);
}

it('writes what the reader reads, kinds of values included', () => {
  const file = new GgufFile(writeAll('all.gguf'));
  expect([...file.entries]).toEqual([...METADATA]);
  expect([...file.tensors.keys()]).toEqual(TENSORS.map(({ name }) => name));
  TENSORS.forEach((tensor, i) => {
    const { shape, type, bytes, offset } = file.tensors.get(tensor.name)!;
    expect([shape, type.name, bytes]).toEqual([tensor.shape, tensor.type, tensor.bytes]);
    expect(offset % 32).toBe(0);
    const target = new Uint8Array(bytes);
    file.readBytes(tensor.name, target, 0);
    expect(target).toEqual(bytesOf(tensor, i));
  });
  file.close();
});

it('writes what @huggingface/gguf reads', async () => {
  const file = writeAll('theirs.gguf');
  const { metadata, tensorInfos, tensorDataOffset } = await gguf(file, { allowLocalFile: true });
  expect(metadata).toMatchObject({ version: 3, tensor_count: 6n, kv_count: 18n });
  for (const [key, { value }] of METADATA) {
    const theirs = (metadata as unknown as Record<string, unknown>)[key];
    expect([key, String(theirs)]).toEqual([key, String(value)]);
  }
  const bytes = readFileSync(file);
  TENSORS.forEach((tensor, i) => {
    const info = tensorInfos[i];
    expect(info.name).toBe(tensor.name);
    expect(info.shape.map(Number).reverse()).toEqual(tensor.shape);
    const at = Number(tensorDataOffset + info.offset);
    expect(new Uint8Array(bytes.subarray(at, at + tensor.bytes))).toEqual(bytesOf(tensor, i));
  });
  // ggml reads whole aligned tensors.
  expect((bytes.length - Number(tensorDataOffset)) % 32).toBe(0);
});

it('keeps general.alignment', () => {
  const aligned = new Map(METADATA).set('general.alignment', { kind: 'u32', value: 128 });
  const file = new GgufFile(writeAll('aligned.gguf', aligned));
  for (const { offset } of file.tensors.values()) expect(offset % 128).toBe(0);
  file.close();
});

it.each<[string, GgufEntry]>([
  ['a number too large', { kind: 'u8', value: 256 }],
  ['a negative number', { kind: 'u64', value: -1 }],
  ['a fraction', { kind: 'i32', value: 1.5 }],
  ['text for a number', { kind: 'u32', value: '7' }],
  ['a number for text', { kind: 'string', value: 7 }],
  ['a list for a number', { kind: 'u32', value: [7] }],
  ['a number for a list', { kind: 'u32[]', value: 7 }],
  ['text in a list of numbers', { kind: 'f32[]', value: ['7'] }],
])('refuses %s', (_, entry) => {
  const run = () => new GgufWriter(path('wrong.gguf'), new Map([['key', entry]]), []);
  expect(codeOf(run)).toBe('INVALID_ARGUMENT');
});

it('refuses a name twice, an unknown one, a second write and a missing one', () => {
  const twice = () => new GgufWriter(path('twice.gguf'), METADATA, [TENSORS[0], TENSORS[0]]);
  expect(codeOf(twice)).toBe('INVALID_ARGUMENT');
  const writer = new GgufWriter(path('some.gguf'), METADATA, TENSORS.slice(0, 2));
  expect(codeOf(() => writer.write('q8', new Uint8Array(1)))).toBe('INVALID_ARGUMENT');
  writer.write('f', new Uint8Array(12));
  expect(codeOf(() => writer.write('f', new Uint8Array(12)))).toBe('INVALID_ARGUMENT');
  writer.write('h', new Uint8Array(19));
  expect(codeOf(() => writer.finish())).toBe('INVALID_ARGUMENT');
  writer.write('h', new Uint8Array(1));
  writer.finish();
});
