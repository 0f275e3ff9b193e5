/**
 * A cursor over a GGUF header. Every length is held against the bytes left in the file before anything is allocated,
 * so a header costs at most a small multiple of what the file really holds.
 */
import { isUtf8 } from 'node:buffer';
import { allocate, type BinaryFile, invalidFile } from './file';

export type GgufScalar = number | bigint | boolean | string;
/** 64-bit integers are numbers where exact, else bigints. */
export type GgufValue = GgufScalar | GgufScalar[];

/** The longest real strings are chat templates of some ten kilobytes. */
const MAX_STRING_BYTES = 2 ** 24;
/** The largest real arrays are the merges of vocabularies, about half a million. */
const MAX_ARRAY_LENGTH = 2 ** 22;
/** The largest real headers, with vocabulary and merges, have some twenty megabytes. */
const MAX_HEADER_BYTES = 2 ** 28;
const WINDOW_BYTES = 2 ** 20;

const STRING = 8;
const ARRAY = 9;
/** u8, i8, u16, i16, u32, i32, f32, bool, then u64, i64, f64. */
const SCALAR_BYTES: ReadonlyMap<number, number> = new Map([
  [0, 1],
  [1, 1],
  [2, 2],
  [3, 2],
  [4, 4],
  [5, 4],
  [6, 4],
  [7, 1],
  [10, 8],
  [11, 8],
  [12, 8],
]);

export class GgufReader {
  /** Of the next byte, from the start of the file. */
  position = 0;
  private readonly limit: number;
  private window: Buffer = Buffer.alloc(0);
  private windowStart = 0;

  constructor(private readonly file: BinaryFile) {
    this.limit = Math.min(file.size, MAX_HEADER_BYTES);
  }

  u32(): number {
    const at = this.take(4);
    return this.window.readUInt32LE(at);
  }

  /** @throws GqaError INVALID_FILE beyond 2^53, where no size or offset of a file can be. */
  u64(): number {
    const at = this.take(8);
    const value = this.window.readBigUInt64LE(at);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw invalidFile(this.file.path, 'sizes below 2^53', String(value));
    }
    return Number(value);
  }

  /** A u64 that says how many items follow. */
  count(what: string, max: number): number {
    const value = this.u64();
    if (value > max) throw invalidFile(this.file.path, `at most ${max} ${what}`, String(value));
    return value;
  }

  string(): string {
    const length = this.count('bytes in a string', MAX_STRING_BYTES);
    const at = this.take(length);
    const bytes = this.window.subarray(at, at + length);
    if (!isUtf8(bytes)) throw invalidFile(this.file.path, 'UTF-8 text', 'other bytes');
    return bytes.toString('utf8');
  }

  /** A metadata value of the given type number. */
  value(type: number): GgufValue {
    return type === ARRAY ? this.array() : this.scalar(type);
  }

  private array(): GgufScalar[] {
    const type = this.u32();
    if (type === ARRAY) throw invalidFile(this.file.path, 'no arrays of arrays', 'one');
    const length = this.count('array elements', MAX_ARRAY_LENGTH);
    const least = length * (type === STRING ? 8 : 1);
    if (least > this.limit - this.position) throw this.ended();
    const values: GgufScalar[] = [];
    for (let i = 0; i < length; i++) values.push(this.scalar(type));
    return values;
  }

  private scalar(type: number): GgufScalar {
    if (type === STRING) return this.string();
    const bytes = SCALAR_BYTES.get(type);
    if (bytes === undefined) {
      throw invalidFile(this.file.path, 'a known metadata type', String(type));
    }
    const at = this.take(bytes);
    return this.decode(type, at);
  }

  private decode(type: number, at: number): GgufScalar {
    const { window } = this;
    switch (type) {
      case 0:
        return window.readUInt8(at);
      case 1:
        return window.readInt8(at);
      case 2:
        return window.readUInt16LE(at);
      case 3:
        return window.readInt16LE(at);
      case 4:
        return window.readUInt32LE(at);
      case 5:
        return window.readInt32LE(at);
      case 6:
        return window.readFloatLE(at);
      case 7:
        return this.bool(window.readUInt8(at));
      case 10:
        return exact(window.readBigUInt64LE(at));
      case 11:
        return exact(window.readBigInt64LE(at));
      default:
        return window.readDoubleLE(at);
    }
  }

  private bool(byte: number): boolean {
    if (byte > 1) throw invalidFile(this.file.path, '0 or 1 as a boolean', String(byte));
    return byte === 1;
  }

  /** Makes the next `bytes` bytes available, steps over them and returns their index in the window. */
  private take(bytes: number): number {
    const start = this.position;
    if (start + bytes > this.limit) throw this.ended();
    if (start + bytes > this.windowStart + this.window.length) {
      const length = Math.min(Math.max(bytes, WINDOW_BYTES), this.limit - start);
      this.window = allocate('header', length, () => Buffer.alloc(length));
      this.file.readInto(this.window, start);
      this.windowStart = start;
    }
    this.position = start + bytes;
    return start - this.windowStart;
  }

  private ended(): Error {
    const { path, size } = this.file;
    return size > this.limit
      ? invalidFile(path, `a header of at most ${this.limit} bytes`, 'a longer one')
      : invalidFile(path, 'a whole header', `the end of the file at ${size}`);
  }
}

function exact(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}
