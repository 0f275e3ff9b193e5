/**
 * Writes GGUF 3: metadata and all tensors are declared first, then each tensor's bytes are written in any order. Own
 * code: @huggingface/gguf writes the metadata of files that are there, and no tensors; the tests read with it what this
 * writes.
 */
import { expectedError } from '../core/errors';
import { ggmlTypeCode } from './ggml-types';
import { kindCode, SCALAR_BYTES } from './gguf-value';
import type { GgufEntry, GgufKind, GgufScalar, GgufScalarKind, GgufValue } from './gguf-value';
import { OutputFile } from './output-file';
import { TensorSlots } from './tensor-slots';

export interface GgufDeclaration {
  name: string;
  /** Row-major, the contiguous dimension last; the file has it reversed. */
  shape: readonly number[];
  /** By ggml's name: 'F32', 'BF16', 'Q8_0'. */
  type: string;
  bytes: number;
}

const MAGIC = 0x46554747; // "GGUF"
const VERSION = 3;
const DEFAULT_ALIGNMENT = 32;

export class GgufWriter {
  private readonly file: OutputFile;
  private readonly slots = new TensorSlots();

  /**
   * Creates the file with its header; tensors lie in the order given.
   * @throws GqaError INVALID_ARGUMENT where two tensors have one name, or a value does not fit its kind; WRITE_FAILED
   */
  constructor(
    path: string,
    metadata: ReadonlyMap<string, GgufEntry>,
    tensors: readonly GgufDeclaration[],
  ) {
    const alignment = Number(metadata.get('general.alignment')?.value ?? DEFAULT_ALIGNMENT);
    const align = (offset: number): number => Math.ceil(offset / alignment) * alignment;
    const header = encodeHeader(metadata, tensors, align);
    this.file = new OutputFile(path);
    try {
      let offset = align(header.length);
      for (const { name, bytes } of tensors) {
        this.slots.declare(name, this.file, offset, bytes);
        offset = align(offset + bytes);
      }
      this.file.writeAt(header, 0);
      // ggml reads the padding behind the last tensor too; holes before it are zeros.
      this.file.resize(offset);
    } catch (error) {
      this.file.close();
      throw error;
    }
  }

  /**
   * Writes the next bytes of a tensor, all of it or a part.
   * @throws GqaError INVALID_ARGUMENT for a tensor that was not declared or has fewer bytes left, WRITE_FAILED
   */
  write(name: string, bytes: Uint8Array): void {
    const { file, offset } = this.slots.take(name, bytes.length);
    file.writeAt(bytes, offset);
  }

  /** Closes the file. @throws GqaError INVALID_ARGUMENT where a tensor is not whole, WRITE_FAILED */
  finish(): void {
    this.slots.checkComplete();
    this.file.close();
  }

  /** Closes the file where writing ends early; safe to call at any time. */
  closeFiles(): void {
    this.file.close();
  }
}

function encodeHeader(
  metadata: ReadonlyMap<string, GgufEntry>,
  tensors: readonly GgufDeclaration[],
  align: (offset: number) => number,
): Buffer {
  const parts = [u32(MAGIC), u32(VERSION), u64(tensors.length), u64(metadata.size)];
  for (const [key, entry] of metadata) parts.push(text(key), ...encodeEntry(key, entry));
  let offset = 0;
  for (const { name, shape, type, bytes } of tensors) {
    parts.push(text(name), u32(shape.length), ...[...shape].reverse().map(u64));
    parts.push(u32(ggmlTypeCode(type)), u64(offset));
    offset = align(offset + bytes);
  }
  return Buffer.concat(parts);
}

function encodeEntry(key: string, { kind, value }: GgufEntry): Buffer[] {
  const element = elementKind(kind);
  if (element === null) {
    const scalar = kind as GgufScalarKind;
    return [u32(kindCode(scalar)), encodeScalar(key, scalar, value)];
  }
  if (!Array.isArray(value)) throw wrong(key, kind, value);
  const head = [u32(kindCode('array')), u32(kindCode(element)), u64(value.length)];
  return [...head, Buffer.concat(value.map((item) => encodeScalar(key, element, item)))];
}

/** 'u32' of 'u32[]'; null of a scalar. */
function elementKind(kind: GgufKind): GgufScalarKind | null {
  return kind.endsWith('[]') ? (kind.slice(0, -2) as GgufScalarKind) : null;
}

function encodeScalar(key: string, kind: GgufScalarKind, value: GgufValue): Buffer {
  if (kind === 'string') {
    if (typeof value !== 'string') throw wrong(key, kind, value);
    return text(value);
  }
  if (typeof value === 'string' || Array.isArray(value)) throw wrong(key, kind, value);
  const out = Buffer.alloc(SCALAR_BYTES[kind]);
  try {
    encodeNumber(out, kind, value);
  } catch {
    // Buffer's methods and BigInt throw for what does not fit.
    throw wrong(key, kind, value);
  }
  return out;
}

function encodeNumber(
  out: Buffer,
  kind: Exclude<GgufScalarKind, 'string'>,
  value: Exclude<GgufScalar, string>,
): void {
  switch (kind) {
    case 'u64':
      out.writeBigUInt64LE(BigInt(value));
      return;
    case 'i64':
      out.writeBigInt64LE(BigInt(value));
      return;
    case 'f32':
      out.writeFloatLE(value as number);
      return;
    case 'f64':
      out.writeDoubleLE(value as number);
      return;
    case 'bool':
      out.writeUInt8(Number(value));
      return;
    default:
      if (!Number.isInteger(value)) throw new RangeError();
      if (kind.startsWith('u')) out.writeUIntLE(value as number, 0, out.length);
      else out.writeIntLE(value as number, 0, out.length);
  }
}

function wrong(key: string, kind: GgufKind, value: GgufValue): Error {
  const received = Array.isArray(value) ? 'a list' : String(value).slice(0, 80);
  return expectedError('INVALID_ARGUMENT', key, `a value of kind ${kind}`, received);
}

function u32(value: number): Buffer {
  const out = Buffer.alloc(4);
  out.writeUInt32LE(value);
  return out;
}

function u64(value: number): Buffer {
  const out = Buffer.alloc(8);
  out.writeBigUInt64LE(BigInt(value));
  return out;
}

/** u64 length and UTF-8. */
function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([u64(bytes.length), bytes]);
}
