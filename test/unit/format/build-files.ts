/** Writes small GGUF and safetensors files for tests, good ones and bad ones. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A folder that is removed after the calling test file. */
export function temporaryFolder(): (name: string) => string {
  const folder = mkdtempSync(join(tmpdir(), 'gqa-format-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return (name) => join(folder, name);
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

export function u64(value: number | bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

export function text(value: string | Buffer): Buffer {
  const bytes = Buffer.from(value as string);
  return Buffer.concat([u64(bytes.length), bytes]);
}

/** One metadata entry of any type, payload included. */
export function entry(key: string, type: number, payload: Buffer): Buffer {
  return Buffer.concat([text(key), u32(type), payload]);
}

export const GGUF_TYPE = { u32: 4, f32: 6, bool: 7, string: 8, array: 9, u64: 10 } as const;

export function stringArray(values: readonly string[]): Buffer {
  return Buffer.concat([u32(GGUF_TYPE.string), u64(values.length), ...values.map(text)]);
}

export interface GgufTensor {
  name: string;
  /** ggml's order: the contiguous dimension first. */
  dims: readonly (number | bigint)[];
  type: number;
  /** From the start of the data; default: behind the tensor before, aligned. */
  offset?: number | bigint;
  data: Buffer;
}

export interface GgufParts {
  version?: number;
  magic?: string;
  keyCount?: number | bigint;
  tensorCount?: number | bigint;
  entries?: readonly Buffer[];
  tensors?: readonly GgufTensor[];
  alignment?: number;
}

export function ggufBytes(parts: GgufParts): Buffer {
  const { entries = [], tensors = [], alignment = 32 } = parts;
  const infos: Buffer[] = [];
  const data: Buffer[] = [];
  let offset = 0;
  for (const tensor of tensors) {
    infos.push(
      Buffer.concat([
        text(tensor.name),
        u32(tensor.dims.length),
        ...tensor.dims.map(u64),
        u32(tensor.type),
        u64(tensor.offset ?? offset),
      ]),
    );
    const padded = Math.ceil(tensor.data.length / alignment) * alignment;
    data.push(tensor.data, Buffer.alloc(padded - tensor.data.length));
    offset += padded;
  }
  const header = Buffer.concat([
    Buffer.from(parts.magic ?? 'GGUF'),
    u32(parts.version ?? 3),
    u64(parts.tensorCount ?? tensors.length),
    u64(parts.keyCount ?? entries.length),
    ...entries,
    ...infos,
  ]);
  const padding = (alignment - (header.length % alignment)) % alignment;
  return Buffer.concat([header, Buffer.alloc(padding), ...data]);
}

/** `header` is JSON text or what JSON.stringify makes of it; `length` overrides the length written before it. */
export function safetensorsBytes(header: unknown, data: Buffer, length?: number | bigint): Buffer {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
  return Buffer.concat([u64(length ?? json.length), json, data]);
}

export function floats(values: readonly number[]): Buffer {
  return Buffer.from(new Float32Array(values).buffer);
}

export function write(path: string, bytes: Buffer): string {
  writeFileSync(path, bytes);
  return path;
}
