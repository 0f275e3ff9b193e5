/**
 * GGUF 2 and 3: a header of metadata and tensor infos, then the tensors' bytes, little-endian. The header is read and
 * checked whole on opening, tensors are read (and dequantised) when asked for.
 *
 * Own code rather than @huggingface/gguf: that parser reads past the end of a truncated file as zeros, is
 * asynchronous, and does not check where tensors lie; the tests compare the two on good files.
 */
import { GqaError } from '../core/errors';
import {
  allocate,
  BinaryFile,
  checkSpans,
  elementCount,
  invalidFile,
  type LoadedTensor,
  type StoredTensor,
} from './file';
import { GGML_TYPES, type GgmlType } from './ggml-types';
import { GgufReader } from './gguf-reader';
import type { GgufEntry, GgufValue } from './gguf-value';

export type { GgufValue } from './gguf-value';

const MAGIC = 0x46554747; // "GGUF"
const DEFAULT_ALIGNMENT = 32;
/** Real models have less than a hundred keys and a few thousand tensors. */
const MAX_KEYS = 65_536;
const MAX_TENSORS = 1_000_000;
/** ggml's GGML_MAX_DIMS. */
const MAX_DIMS = 4;

export interface GgufTensorInfo {
  /** Row-major as everywhere here: the file's order reversed. */
  shape: readonly number[];
  type: GgmlType;
  /** Of the first byte, from the start of the file. */
  offset: number;
  bytes: number;
}

export class GgufFile {
  readonly metadata: ReadonlyMap<string, GgufValue>;
  /** The same with the kinds of the values. */
  readonly entries: ReadonlyMap<string, GgufEntry>;
  readonly tensors: ReadonlyMap<string, GgufTensorInfo>;
  private readonly file: BinaryFile;

  /** @throws GqaError INVALID_FILE where the header breaks any rule of the format, UNSUPPORTED_MODEL for versions 1 and 4 on. */
  constructor(readonly path: string) {
    this.file = new BinaryFile(path);
    try {
      const reader = new GgufReader(this.file);
      const tensorCount = readPreamble(reader, path);
      this.entries = readEntries(reader, path);
      this.metadata = new Map(Array.from(this.entries, ([key, { value }]) => [key, value]));
      this.tensors = readTensorInfos(reader, path, tensorCount, alignmentOf(path, this.metadata));
      checkSpans(
        path,
        Array.from(this.tensors, ([name, { offset, bytes }]) => ({ name, begin: offset, bytes })),
        this.file.size,
      );
    } catch (error) {
      this.file.close();
      throw error;
    }
  }

  /** @throws GqaError INVALID_FILE without such a tensor, UNSUPPORTED_MODEL where its type cannot be widened. */
  read(name: string): LoadedTensor {
    const { shape, type, offset, bytes } = this.info(name);
    const { dtype, dequantize } = type;
    if (dtype !== undefined) {
      const data = allocate(name, bytes, () =>
        dtype === 'f32' ? new Float32Array(bytes / 4) : new Uint16Array(bytes / 2),
      );
      this.file.readInto(new Uint8Array(data.buffer), offset);
      return { shape, dtype, data };
    }
    if (dequantize === undefined) {
      throw new GqaError('UNSUPPORTED_MODEL', `${this.path}: ${name} is stored as ${type.name}`, {
        argument: name,
        expected: supportedTypes(),
        received: type.name,
      });
    }
    const count = (bytes / type.blockBytes) * type.blockSize;
    const blocks = allocate(name, bytes, () => new Uint8Array(bytes));
    const data = allocate(name, 4 * count, () => new Float32Array(count));
    this.file.readInto(blocks, offset);
    dequantize(blocks, data);
    return { shape, dtype: 'f32', data };
  }

  /** The same without widening what layers can multiply in blocks. */
  readStored(name: string): StoredTensor {
    const { shape, type, offset, bytes } = this.info(name);
    if (type.blocks === undefined) return this.read(name);
    const data = allocate(name, bytes, () => new Uint8Array(bytes));
    this.file.readInto(data, offset);
    return { shape, dtype: type.blocks, data };
  }

  /** Bytes `from` on of the tensor as it is stored. */
  readBytes(name: string, target: Uint8Array, from: number): void {
    this.file.readInto(target, this.info(name).offset + from);
  }

  private info(name: string): GgufTensorInfo {
    const info = this.tensors.get(name);
    if (info === undefined) throw invalidFile(this.path, `a tensor ${name}`, 'none');
    return info;
  }

  close(): void {
    this.file.close();
  }
}

function supportedTypes(): string {
  const types = [...GGML_TYPES.values()];
  return types.flatMap((type) => (type.dtype || type.dequantize ? type.name : [])).join(', ');
}

/** Returns the tensor count; the reader stands at the key count then. */
function readPreamble(reader: GgufReader, path: string): number {
  if (reader.u32() !== MAGIC) throw invalidFile(path, 'a GGUF file', 'another magic number');
  const version = reader.u32();
  if (version !== 2 && version !== 3) {
    throw new GqaError('UNSUPPORTED_MODEL', `${path}: GGUF version ${version}`, {
      argument: path,
      expected: 'GGUF version 2 or 3, little-endian',
      received: String(version),
    });
  }
  return reader.count('tensors', MAX_TENSORS);
}

function readEntries(reader: GgufReader, path: string): Map<string, GgufEntry> {
  const keys = reader.count('keys', MAX_KEYS);
  const entries = new Map<string, GgufEntry>();
  for (let i = 0; i < keys; i++) {
    const key = reader.string();
    if (entries.has(key)) throw invalidFile(path, 'unique keys', `'${key.slice(0, 80)}' twice`);
    entries.set(key, reader.entry(reader.u32()));
  }
  return entries;
}

function alignmentOf(path: string, metadata: ReadonlyMap<string, GgufValue>): number {
  const alignment = metadata.get('general.alignment') ?? DEFAULT_ALIGNMENT;
  // A power of two below 2^31, so that the bit trick and the rounding below are exact.
  if (
    typeof alignment !== 'number' ||
    !(alignment >= 1 && alignment <= 2 ** 30) ||
    (alignment & (alignment - 1)) !== 0
  ) {
    throw invalidFile(path, 'a power of two as general.alignment', String(alignment).slice(0, 80));
  }
  return alignment;
}

function readTensorInfos(
  reader: GgufReader,
  path: string,
  count: number,
  alignment: number,
): Map<string, GgufTensorInfo> {
  const tensors = new Map<string, GgufTensorInfo>();
  for (let i = 0; i < count; i++) {
    const name = reader.string();
    if (tensors.has(name))
      throw invalidFile(path, 'unique tensor names', `'${name.slice(0, 80)}' twice`);
    tensors.set(name, readTensorInfo(reader, path, `'${name.slice(0, 80)}'`, alignment));
  }
  // Offsets count from the first aligned byte after the header.
  const dataStart = Math.ceil(reader.position / alignment) * alignment;
  for (const info of tensors.values()) info.offset += dataStart;
  return tensors;
}

function readTensorInfo(
  reader: GgufReader,
  path: string,
  name: string,
  alignment: number,
): GgufTensorInfo {
  const dims = reader.u32();
  if (dims < 1 || dims > MAX_DIMS)
    throw invalidFile(path, `1 to ${MAX_DIMS} dimensions of ${name}`, `${dims}`);
  const shape: number[] = [];
  for (let d = 0; d < dims; d++) shape.unshift(reader.u64());
  const typeNumber = reader.u32();
  const type = GGML_TYPES.get(typeNumber);
  if (type === undefined) throw invalidFile(path, `a known type of ${name}`, `${typeNumber}`);
  const rowLength = shape[dims - 1];
  if (rowLength % type.blockSize !== 0) {
    throw invalidFile(
      path,
      `rows of ${name} in blocks of ${type.blockSize}`,
      `rows of ${rowLength}`,
    );
  }
  const bytes = (elementCount(path, name, shape) / type.blockSize) * type.blockBytes;
  const offset = reader.u64();
  if (offset % alignment !== 0)
    throw invalidFile(path, `${name} aligned to ${alignment}`, `${offset}`);
  return { shape, type, offset, bytes };
}
