/**
 * safetensors: u64 header length, a JSON header { name: { dtype, shape, data_offsets } }, then the tensors' bytes,
 * little-endian, without gaps. The header is checked whole on opening; tensors are read when asked for.
 */
import { isUtf8 } from 'node:buffer';
import type { FloatDType } from '../core/dtype';
import { GqaError } from '../core/errors';
import {
  allocate,
  BinaryFile,
  checkSpans,
  elementCount,
  invalidFile,
  type LoadedTensor,
} from './file';

/** The reference implementation's own limit. */
const MAX_HEADER_BYTES = 100_000_000;
/** Header object, tensor object, shape array. */
const MAX_JSON_DEPTH = 3;

const DTYPE_BITS: ReadonlyMap<string, number> = new Map([
  ['F4', 4],
  ['F6_E2M3', 6],
  ['F6_E3M2', 6],
  ['BOOL', 8],
  ['U8', 8],
  ['I8', 8],
  ['F8_E5M2', 8],
  ['F8_E4M3', 8],
  ['F8_E8M0', 8],
  ['I16', 16],
  ['U16', 16],
  ['F16', 16],
  ['BF16', 16],
  ['I32', 32],
  ['U32', 32],
  ['F32', 32],
  ['F64', 64],
  ['I64', 64],
  ['U64', 64],
  ['C64', 64],
]);

export const FLOAT_DTYPES: ReadonlyMap<string, FloatDType> = new Map([
  ['F32', 'f32'],
  ['F16', 'f16'],
  ['BF16', 'bf16'],
]);

export interface SafetensorsEntry {
  /** The file's own name of the type, e.g. 'BF16'. */
  dtype: string;
  shape: readonly number[];
  /** Of the first byte, from the start of the file. */
  offset: number;
  bytes: number;
}

export class SafetensorsFile {
  readonly tensors: ReadonlyMap<string, SafetensorsEntry>;
  /** The header's `__metadata__`: text by name. */
  readonly metadata: ReadonlyMap<string, string>;
  private readonly file: BinaryFile;

  /** @throws GqaError INVALID_FILE where the header breaks any rule of the format. */
  constructor(readonly path: string) {
    this.file = new BinaryFile(path);
    try {
      const { text, dataStart } = readHeader(this.file);
      const header = parseHeader(path, text);
      this.metadata = readMetadata(path, header.get('__metadata__'));
      header.delete('__metadata__');
      this.tensors = readEntries(path, header, dataStart, this.file.size);
    } catch (error) {
      this.file.close();
      throw error;
    }
  }

  /** Bytes `from` on of the tensor as it is stored. */
  readBytes(name: string, target: Uint8Array, from: number): void {
    this.file.readInto(target, this.entry(name).offset + from);
  }

  /** @throws GqaError INVALID_FILE without such a tensor, UNSUPPORTED_MODEL where it is no F32, F16 or BF16. */
  read(name: string): LoadedTensor {
    const entry = this.entry(name);
    const dtype = FLOAT_DTYPES.get(entry.dtype);
    if (dtype === undefined) {
      throw new GqaError('UNSUPPORTED_MODEL', `${this.path}: ${name} is stored as ${entry.dtype}`, {
        argument: name,
        expected: [...FLOAT_DTYPES.keys()].join(', '),
        received: entry.dtype,
      });
    }
    const data = allocate(name, entry.bytes, () =>
      dtype === 'f32' ? new Float32Array(entry.bytes / 4) : new Uint16Array(entry.bytes / 2),
    );
    this.file.readInto(new Uint8Array(data.buffer), entry.offset);
    return { shape: entry.shape, dtype, data };
  }

  close(): void {
    this.file.close();
  }

  private entry(name: string): SafetensorsEntry {
    const entry = this.tensors.get(name);
    if (entry === undefined) throw invalidFile(this.path, `a tensor ${name}`, 'none');
    return entry;
  }
}

function readHeader(file: BinaryFile): { text: string; dataStart: number } {
  const prefix = Buffer.alloc(8);
  if (file.size < 8) throw invalidFile(file.path, 'a safetensors header', `${file.size} bytes`);
  file.readInto(prefix, 0);
  const length = prefix.readBigUInt64LE();
  const limit = Math.min(MAX_HEADER_BYTES, file.size - 8);
  if (length > BigInt(limit)) {
    throw invalidFile(file.path, `a header of at most ${limit} bytes`, `${length} bytes`);
  }
  const bytes = Buffer.alloc(Number(length));
  file.readInto(bytes, 8);
  if (!isUtf8(bytes)) throw invalidFile(file.path, 'a UTF-8 header', 'other bytes');
  return { text: bytes.toString('utf8'), dataStart: 8 + bytes.length };
}

function parseHeader(path: string, text: string): Map<string, unknown> {
  checkJsonShape(path, text);
  let header: unknown;
  try {
    header = JSON.parse(text);
  } catch (cause) {
    throw invalidFile(path, 'a JSON header', (cause as Error).message);
  }
  if (!isObject(header)) throw invalidFile(path, 'a JSON object as header', typeof header);
  return new Map(Object.entries(header));
}

/**
 * JSON.parse would take the last of two equal names, and would build any depth of nested arrays: both are looked
 * for before it runs.
 */
function checkJsonShape(path: string, text: string): void {
  const names = new Set<string>();
  let depth = 0;
  let name = '';
  for (let i = 0; i < text.length; i++) {
    const char = text[i];
    if (char === '"') {
      const end = stringEnd(text, i);
      if (depth === 1) name = text.slice(i + 1, end);
      i = end;
    } else if (char === '{' || char === '[') {
      if (++depth > MAX_JSON_DEPTH) throw invalidFile(path, 'a flat header', 'nested JSON');
    } else if (char === '}' || char === ']') {
      depth--;
    } else if (char === ':' && depth === 1) {
      if (names.has(name)) throw invalidFile(path, 'unique tensor names', `${show(name)} twice`);
      names.add(name);
    }
  }
}

/** Index of the quote that ends the string begun at `start`, or the text's length. */
function stringEnd(text: string, start: number): number {
  for (let i = start + 1; i < text.length; i++) {
    if (text[i] === '\\') i++;
    else if (text[i] === '"') return i;
  }
  return text.length;
}

function readMetadata(path: string, value: unknown): Map<string, string> {
  if (value === undefined) return new Map();
  if (!isObject(value) || Object.values(value).some((text) => typeof text !== 'string')) {
    throw invalidFile(path, 'text values in __metadata__', 'others');
  }
  return new Map(Object.entries(value as Record<string, string>));
}

function readEntries(
  path: string,
  header: ReadonlyMap<string, unknown>,
  dataStart: number,
  fileBytes: number,
): Map<string, SafetensorsEntry> {
  const entries = new Map<string, SafetensorsEntry>();
  const spans = [];
  let total = 0;
  for (const [name, value] of header) {
    const entry = readEntry(path, name, value, dataStart, fileBytes);
    entries.set(name, entry);
    spans.push({ name, begin: entry.offset, bytes: entry.bytes });
    total += entry.bytes;
  }
  checkSpans(path, spans, fileBytes);
  // No overlap and nothing outside: equal sums mean no gap either.
  if (total !== fileBytes - dataStart) {
    throw invalidFile(path, `${total} bytes of tensors`, `${fileBytes - dataStart} bytes`);
  }
  return entries;
}

function readEntry(
  path: string,
  name: string,
  value: unknown,
  dataStart: number,
  fileBytes: number,
): SafetensorsEntry {
  if (!isObject(value)) throw invalidFile(path, `an object for ${name}`, typeof value);
  const { dtype, shape, data_offsets: offsets } = value;
  const bits = typeof dtype === 'string' ? DTYPE_BITS.get(dtype) : undefined;
  if (bits === undefined) throw invalidFile(path, `a dtype of ${name}`, show(dtype));
  if (!isCounts(shape)) throw invalidFile(path, `a shape of ${name}`, show(shape));
  if (!isCounts(offsets) || offsets.length !== 2 || offsets[1] < offsets[0]) {
    throw invalidFile(path, `two ascending offsets of ${name}`, show(offsets));
  }
  const offset = dataStart + offsets[0];
  const bytes = offsets[1] - offsets[0];
  const count = elementCount(path, name, shape);
  // count < 2^53 and bits <= 64 could round; the file is far smaller than where that begins.
  if (bytes > fileBytes || count * bits !== bytes * 8) {
    throw invalidFile(
      path,
      `${(count * bits) / 8} bytes for ${name} (${String(dtype)} [${shape.join()}])`,
      `${bytes} bytes`,
    );
  }
  return { dtype: String(dtype), shape, offset, bytes };
}

/** A hostile value, cut short for a message. */
function show(value: unknown): string {
  if (Array.isArray(value) && value.length > 8) return `an array of ${value.length}`;
  return String(JSON.stringify(value)).slice(0, 80);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);
}
