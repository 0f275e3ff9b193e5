/**
 * Writes safetensors as Hugging Face does: all tensors are declared first, which makes the headers, then each tensor's
 * bytes are written in any order. Beyond a size the tensors are spread over shards with an index.
 */
import { join } from 'node:path';
import type { FloatDType } from '../core/dtype';
import { expectedError } from '../core/errors';
import { OutputFile, writeWholeFile } from './output-file';
import { TensorSlots } from './tensor-slots';

export interface TensorDeclaration {
  name: string;
  /** As safetensors calls it: 'F32', 'F16', 'BF16', or whatever a file that is copied has. */
  dtype: string;
  shape: readonly number[];
  bytes: number;
}

export interface SafetensorsOptions {
  /** Bytes of tensors in a shard; a tensor that is larger has one of its own. Default 5 GB, transformers' own. */
  shardBytes?: number;
  metadata?: Readonly<Record<string, string>>;
}

const DEFAULT_SHARD_BYTES = 5_000_000_000;
/** The header's length is padded to this, so that tensors lie aligned. */
const ALIGNMENT = 8;

export const SAFETENSORS_DTYPES: Readonly<Record<FloatDType, string>> = {
  f32: 'F32',
  f16: 'F16',
  bf16: 'BF16',
};

export class SafetensorsWriter {
  private readonly files: OutputFile[] = [];
  private readonly slots = new TensorSlots();

  /**
   * Creates model.safetensors in `folder`, or shards and model.safetensors.index.json, with their headers.
   * @throws GqaError INVALID_ARGUMENT where two tensors have one name, WRITE_FAILED
   */
  constructor(
    folder: string,
    tensors: readonly TensorDeclaration[],
    { shardBytes = DEFAULT_SHARD_BYTES, metadata = { format: 'pt' } }: SafetensorsOptions = {},
  ) {
    const shards = intoShards(tensors, shardBytes);
    const names = shards.map((_, i) => shardName(i, shards.length));
    try {
      shards.forEach((shard, i) => this.begin(join(folder, names[i]), shard, metadata));
      if (shards.length > 1) writeIndex(folder, shards, names);
    } catch (error) {
      this.closeFiles();
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

  /** Closes the files. @throws GqaError INVALID_ARGUMENT where a tensor is not whole, WRITE_FAILED */
  finish(): void {
    this.slots.checkComplete();
    for (const file of this.files) file.close();
  }

  /** Closes what is open, where writing ends early; safe to call at any time. */
  closeFiles(): void {
    for (const file of this.files) file.close();
  }

  private begin(
    path: string,
    tensors: readonly TensorDeclaration[],
    metadata: Readonly<Record<string, string>>,
  ): void {
    const file = new OutputFile(path);
    this.files.push(file);
    const header = encodeHeader(tensors, metadata);
    file.writeAt(header, 0);
    let offset = header.length;
    for (const { name, bytes } of tensors) {
      this.slots.declare(name, file, offset, bytes);
      offset += bytes;
    }
  }
}

/** Tensors in their order, each in the last shard unless that would grow too large. */
function intoShards(
  tensors: readonly TensorDeclaration[],
  shardBytes: number,
): TensorDeclaration[][] {
  const shards: TensorDeclaration[][] = [[]];
  let bytes = 0;
  for (const tensor of tensors) {
    if (bytes > 0 && bytes + tensor.bytes > shardBytes) {
      shards.push([]);
      bytes = 0;
    }
    shards.at(-1)!.push(tensor);
    bytes += tensor.bytes;
  }
  return shards;
}

function shardName(index: number, count: number): string {
  if (count === 1) return 'model.safetensors';
  const number = (n: number): string => String(n).padStart(5, '0');
  return `model-${number(index + 1)}-of-${number(count)}.safetensors`;
}

function writeIndex(
  folder: string,
  shards: readonly (readonly TensorDeclaration[])[],
  names: readonly string[],
): void {
  const entries = shards.flatMap((shard, i) => shard.map(({ name }) => [name, names[i]] as const));
  const total = shards.flat().reduce((sum, { bytes }) => sum + bytes, 0);
  const index = { metadata: { total_size: total }, weight_map: Object.fromEntries(entries) };
  const path = join(folder, 'model.safetensors.index.json');
  writeWholeFile(path, `${JSON.stringify(index, null, 2)}\n`);
}

/** u64 length, then the JSON, padded with spaces. */
function encodeHeader(
  tensors: readonly TensorDeclaration[],
  metadata: Readonly<Record<string, string>>,
): Buffer {
  // A null prototype: a tensor may be called __proto__.
  const header = Object.create(null) as Record<string, unknown>;
  header.__metadata__ = metadata;
  let offset = 0;
  for (const { name, dtype, shape, bytes } of tensors) {
    if (name in header) {
      throw expectedError('INVALID_ARGUMENT', 'tensors', 'unique names', `${name} twice`);
    }
    header[name] = { dtype, shape, data_offsets: [offset, offset + bytes] };
    offset += bytes;
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Math.ceil(text.length / ALIGNMENT) * ALIGNMENT;
  const out = Buffer.alloc(8 + length, ' ');
  out.writeBigUInt64LE(BigInt(length));
  text.copy(out, 8);
  return out;
}
