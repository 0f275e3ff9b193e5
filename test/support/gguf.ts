/**
 * A GGUF reader and writer of the tests' own, from the format's description, so that the package's reader is judged by
 * something that shares no code with it. Blocks of 32 elements (Q6_K: 256) along a row.
 */
import { readFileSync } from 'node:fs';
import { decodeSmall, encodeSmall } from './numbers';
import type { Random } from './random';

// Globals are slow to reach from within jest: taken once.
const { floor } = Math;
const View = DataView;

export type GgufType = 'F32' | 'F16' | 'BF16' | 'Q4_0' | 'Q4_1' | 'Q5_0' | 'Q5_1' | 'Q8_0' | 'Q6_K';

interface BlockType {
  code: number;
  /** Elements and bytes of a block. */
  elements: number;
  bytes: number;
  decode(block: DataView, out: Float32Array, at: number): void;
}

const half = (b: DataView, at: number) => decodeSmall(b.getUint16(at, true), 'f16');
/** Element i of 32 nibbles: the low ones of 16 bytes, then the high ones. */
const nibble = (b: DataView, at: number, i: number) =>
  (b.getUint8(at + (i % 16)) >> (i < 16 ? 0 : 4)) & 15;
const fifthBit = (b: DataView, at: number, i: number) => (b.getUint32(at, true) >>> i) & 1;

/** A block type of 32 elements whose element i is `value`. */
function block32(
  code: number,
  bytes: number,
  value: (b: DataView, i: number) => number,
): BlockType {
  const decode: BlockType['decode'] = (block, out, at) => {
    for (let i = 0; i < 32; i++) out[at + i] = value(block, i);
  };
  return { code, elements: 32, bytes, decode };
}

function single(code: number, bytes: number, value: (b: DataView) => number): BlockType {
  return { code, elements: 1, bytes, decode: (b, out, at) => (out[at] = value(b)) };
}

export const GGUF_TYPES: Record<GgufType, BlockType> = {
  F32: single(0, 4, (b) => b.getFloat32(0, true)),
  F16: single(1, 2, (b) => half(b, 0)),
  BF16: single(30, 2, (b) => decodeSmall(b.getUint16(0, true), 'bf16')),
  Q4_0: block32(2, 18, (b, i) => half(b, 0) * (nibble(b, 2, i) - 8)),
  Q4_1: block32(3, 20, (b, i) => half(b, 0) * nibble(b, 4, i) + half(b, 2)),
  Q5_0: block32(6, 22, (b, i) => half(b, 0) * (nibble(b, 6, i) + 16 * fifthBit(b, 2, i) - 16)),
  Q5_1: block32(
    7,
    24,
    (b, i) => half(b, 0) * (nibble(b, 8, i) + 16 * fifthBit(b, 4, i)) + half(b, 2),
  ),
  Q8_0: block32(8, 34, (b, i) => half(b, 0) * b.getInt8(2 + i)),
  Q6_K: { code: 14, elements: 256, bytes: 210, decode: decodeQ6K },
};

/** ql [128], qh [64], scales [16] of int8, d: each half of 128 elements is four runs of 32. */
function decodeQ6K(b: DataView, out: Float32Array, at: number): void {
  for (let i = 0; i < 256; i++) {
    const [part, run, l] = [floor(i / 128), floor((i % 128) / 32), i % 32];
    const low = (b.getUint8(64 * part + 32 * (run % 2) + l) >> (run < 2 ? 0 : 4)) & 15;
    const high = (b.getUint8(128 + 32 * part + l) >> (2 * run)) & 3;
    const scale = b.getInt8(192 + floor(i / 16));
    out[at + i] = half(b, 208) * scale * (low + 16 * high - 32);
  }
}

export function decodeTensor(type: GgufType, bytes: Uint8Array, count: number): Float32Array {
  const { elements, bytes: blockBytes, decode } = GGUF_TYPES[type];
  const out = new Float32Array(count);
  for (let n = 0; n < count / elements; n++) {
    decode(
      new View(bytes.buffer, bytes.byteOffset + n * blockBytes, blockBytes),
      out,
      n * elements,
    );
  }
  return out;
}

/** Random blocks with scales that make weights of about `size`. */
export function randomTensor(
  type: GgufType,
  count: number,
  size: number,
  random: Random,
): Uint8Array {
  const { elements, bytes: blockBytes } = GGUF_TYPES[type];
  const out = new Uint8Array((count / elements) * blockBytes);
  out.forEach((_, i) => (out[i] = random.int(0, 255)));
  const view = new View(out.buffer);
  const setHalf = (at: number, x: number) => view.setUint16(at, encodeSmall(x, 'f16'), true);
  for (let n = 0; n < count / elements; n++) {
    const at = n * blockBytes;
    const vary = size * (0.5 + random.uniform());
    if (type === 'F32') view.setFloat32(at, size * random.normal(), true);
    else if (type === 'F16') setHalf(at, size * random.normal());
    else if (type === 'BF16') view.setUint16(at, encodeSmall(size * random.normal(), 'bf16'), true);
    else if (type === 'Q4_0') setHalf(at, vary / 5);
    else if (type === 'Q5_0') setHalf(at, vary / 10);
    else if (type === 'Q8_0') setHalf(at, vary / 80);
    else if (type === 'Q6_K') setHalf(at + 208, vary / 1500);
    else {
      setHalf(at, vary / (type === 'Q4_1' ? 5 : 10));
      setHalf(at + 2, -1.5 * vary);
    }
  }
  return out;
}

export interface GgufTensor {
  name: string;
  /** Row-major, outermost first. */
  shape: number[];
  type: GgufType;
  bytes: Uint8Array;
}
/** A number is written as u32 where whole, else as f32 (a `Float` forces f32). */
export type GgufValue = number | string | boolean | Float | string[] | number[];
export class Float {
  constructor(readonly value: number) {}
}
export interface GgufFile {
  metadata: Map<string, GgufValue>;
  tensors: GgufTensor[];
}

const ALIGNMENT = 32;
const KIND = { u32: 4, i32: 5, f32: 6, bool: 7, string: 8, array: 9 };

export function writeGguf({ metadata, tensors }: GgufFile): Buffer {
  const parts: Buffer[] = [];
  const u32 = (x: number) => parts.push(Buffer.from(Uint32Array.of(x).buffer));
  const u64 = (x: number) => parts.push(Buffer.from(BigUint64Array.of(BigInt(x)).buffer));
  const f32 = (x: number) => parts.push(Buffer.from(Float32Array.of(x).buffer));
  const string = (s: string) => (u64(Buffer.byteLength(s)), parts.push(Buffer.from(s)));
  parts.push(Buffer.from('GGUF'));
  u32(3);
  u64(tensors.length);
  u64(metadata.size);
  for (const [key, value] of metadata) {
    string(key);
    if (value instanceof Float) (u32(KIND.f32), f32(value.value));
    else if (typeof value === 'string') (u32(KIND.string), string(value));
    else if (typeof value === 'boolean') (u32(KIND.bool), parts.push(Buffer.of(value ? 1 : 0)));
    else if (typeof value === 'number') (u32(KIND.u32), u32(value));
    else if (typeof value[0] === 'string') {
      (u32(KIND.array), u32(KIND.string), u64(value.length), (value as string[]).forEach(string));
    } else
      (u32(KIND.array),
        u32(KIND.i32),
        u64(value.length),
        (value as number[]).forEach((x) => u32(x >>> 0)));
  }
  let offset = 0;
  for (const t of tensors) {
    string(t.name);
    u32(t.shape.length);
    for (const n of [...t.shape].reverse()) u64(n);
    u32(GGUF_TYPES[t.type].code);
    u64(offset);
    offset += aligned(t.bytes.length);
  }
  const header = Buffer.concat(parts);
  const padded = (b: Uint8Array) => Buffer.concat([b, Buffer.alloc(aligned(b.length) - b.length)]);
  return Buffer.concat([padded(header), ...tensors.map((t) => padded(t.bytes))]);
}

function aligned(n: number): number {
  return Math.ceil(n / ALIGNMENT) * ALIGNMENT;
}

export function readGguf(path: string): GgufFile {
  const file = readFileSync(path);
  let at = 8;
  const u32 = () => file.readUInt32LE((at += 4) - 4);
  const u64 = () => Number(file.readBigUInt64LE((at += 8) - 8));
  const string = (): string => {
    const bytes = u64();
    return file.toString('utf8', at, (at += bytes));
  };
  const scalar = (kind: number): GgufValue => {
    const sizes = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8];
    if (kind === KIND.string) return string();
    const start = at;
    at += sizes[kind];
    if (kind === KIND.f32) return file.readFloatLE(start);
    if (kind === 12) return file.readDoubleLE(start);
    if (kind === KIND.i32) return file.readInt32LE(start);
    if (kind === KIND.bool) return file[start] !== 0;
    return file.readUIntLE(start, Math.min(sizes[kind], 6));
  };
  const value = (kind: number): GgufValue => {
    if (kind !== KIND.array) return scalar(kind);
    const element = u32();
    return Array.from({ length: u64() }, () => scalar(element)) as GgufValue;
  };
  const [tensorCount, metadataCount] = [u64(), u64()];
  const metadata = new Map<string, GgufValue>();
  for (let n = 0; n < metadataCount; n++) metadata.set(string(), value(u32()));
  const infos = Array.from({ length: tensorCount }, () => {
    const name = string();
    const shape = Array.from({ length: u32() }, u64).reverse();
    const code = u32();
    return { name, shape, code, offset: u64() };
  });
  const data = aligned(at);
  const tensors = infos.map(({ name, shape, code, offset }) => {
    const type = (Object.keys(GGUF_TYPES) as GgufType[]).find((t) => GGUF_TYPES[t].code === code)!;
    const count = shape.reduce((a, b) => a * b, 1);
    const bytes = (count / GGUF_TYPES[type].elements) * GGUF_TYPES[type].bytes;
    return { name, shape, type, bytes: file.subarray(data + offset, data + offset + bytes) };
  });
  return { metadata, tensors };
}
