/**
 * A cursor over a GGUF header. Every length is held against the bytes left in the file before anything is allocated,
 * so a header costs at most a small multiple of what the file really holds.
 */
import { isUtf8 } from 'node:buffer';
import { allocate, type BinaryFile, invalidFile } from './file';
import { kindOf, SCALAR_BYTES } from './gguf-value';
import type { GgufEntry, GgufScalar, GgufScalarKind } from './gguf-value';

/** The longest real strings are chat templates of some ten kilobytes. */
const MAX_STRING_BYTES = 2 ** 24;
/** The largest real arrays are the merges of vocabularies, about half a million. */
const MAX_ARRAY_LENGTH = 2 ** 22;
/** The largest real headers, with vocabulary and merges, have some twenty megabytes. */
const MAX_HEADER_BYTES = 2 ** 28;
const WINDOW_BYTES = 2 ** 20;

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
    // Not as a BigInt: headers have a hundred thousand of these, the lengths of tokens and merges.
    const high = this.window.readUInt32LE(at + 4);
    if (high >= 2 ** 21) {
      const value = String(this.window.readBigUInt64LE(at));
      throw invalidFile(this.file.path, 'sizes below 2^53', value);
    }
    return high * 2 ** 32 + this.window.readUInt32LE(at);
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
  entry(type: number): GgufEntry {
    const kind = kindOf(type);
    if (kind === undefined) throw this.unknownKind(type);
    return kind === 'array' ? this.array() : { kind, value: this.scalar(kind) };
  }

  private array(): GgufEntry {
    const type = this.u32();
    const kind = kindOf(type);
    if (kind === undefined) throw this.unknownKind(type);
    if (kind === 'array') throw invalidFile(this.file.path, 'no arrays of arrays', 'one');
    const length = this.count('array elements', MAX_ARRAY_LENGTH);
    const least = length * (kind === 'string' ? 8 : 1);
    if (least > this.limit - this.position) throw this.ended();
    const value: GgufScalar[] = [];
    for (let i = 0; i < length; i++) value.push(this.scalar(kind));
    return { kind: `${kind}[]`, value };
  }

  private unknownKind(type: number): Error {
    return invalidFile(this.file.path, 'a known metadata type', String(type));
  }

  private scalar(kind: GgufScalarKind): GgufScalar {
    if (kind === 'string') return this.string();
    const at = this.take(SCALAR_BYTES[kind]);
    const { window } = this;
    switch (kind) {
      case 'u8':
        return window.readUInt8(at);
      case 'i8':
        return window.readInt8(at);
      case 'u16':
        return window.readUInt16LE(at);
      case 'i16':
        return window.readInt16LE(at);
      case 'u32':
        return window.readUInt32LE(at);
      case 'i32':
        return window.readInt32LE(at);
      case 'f32':
        return window.readFloatLE(at);
      case 'bool':
        return this.bool(window.readUInt8(at));
      case 'u64':
        return exact(window.readBigUInt64LE(at));
      case 'i64':
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
