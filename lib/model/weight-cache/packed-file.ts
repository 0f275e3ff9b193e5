/**
 * The file of a model's packed weights:
 *
 *     0   magic, 16 bytes
 *    16   u64 offset of the index, u64 its length, both little-endian
 *    32   SHA-256 of the index
 *    64   matrices as the backend packs them, each at a multiple of 64
 *   ...   the index: JSON { key, matrices: [{ name, dtype, rows, columns, offset, bytes, checksum }] }
 *
 * What is read from one is checked whole: the index by its hash, every matrix by its checksum, each time that the file is
 * opened. That reads all of it once, which the first token would do anyway.
 */
import { createHash } from 'node:crypto';
import { chmodSync, existsSync } from 'node:fs';
import type { PackedFile, PackedFiles, PackedPlace, PackedWeights } from '../../backend/contract';
import { WEIGHT_DTYPE_CODE, type WeightDType } from '../../core/dtype';
import { AtomicOutput } from '../../format/atomic-output';
import { BinaryFile, invalidFile } from '../../format/file';
import { OutputFile, writing } from '../../format/output-file';
import { JsonFields } from '../json-fields';

const MAGIC = Buffer.from('gqa-weights-v1\n\0', 'latin1');
const PREAMBLE_BYTES = 64;
const ALIGNMENT = 64;
/** Mixtures with ten thousand experts have some megabytes of names. */
const MAX_INDEX_BYTES = 2 ** 26;
const COPY_BYTES = 2 ** 22;

interface PackedMatrix extends PackedPlace {
  name: string;
  bytes: number;
  /** Of its bytes, 16 hexadecimal digits. */
  checksum: string;
}

function hex(checksum: bigint): string {
  return checksum.toString(16).padStart(16, '0');
}

/** Writes such a file beside its place, and puts it there in the end. */
export class PackedFileWriter {
  private readonly output: AtomicOutput;
  private readonly file: OutputFile;
  private readonly matrices = new Map<string, PackedMatrix>();
  private readonly buffer = new Uint8Array(COPY_BYTES);
  private end = ALIGNMENT;

  /** @throws GqaError WRITE_FAILED */
  constructor(
    private readonly path: string,
    private readonly key: string,
    private readonly files: PackedFiles,
  ) {
    this.output = new AtomicOutput(path, { kind: 'file', overwrite: true });
    this.file = new OutputFile(this.output.partial);
  }

  /** A name that is there already stays as it is. @throws GqaError WRITE_FAILED */
  add(name: string, dtype: WeightDType, weights: PackedWeights): void {
    if (this.matrices.has(name)) return;
    const { rows, columns, bytes } = weights;
    const offset = this.end;
    for (let from = 0; from < bytes; from += COPY_BYTES) {
      const part = this.buffer.subarray(0, Math.min(COPY_BYTES, bytes - from));
      this.files.read(weights, part, from);
      this.file.writeAt(part, offset + from);
    }
    const checksum = hex(this.files.checksum(weights));
    this.matrices.set(name, { name, dtype, rows, columns, offset, bytes, checksum });
    this.end = Math.ceil((offset + bytes) / ALIGNMENT) * ALIGNMENT;
  }

  /** Safe on disk, in its place; another process's file that came to be there meanwhile stays. @throws GqaError WRITE_FAILED */
  commit(): void {
    const matrices = [...this.matrices.values()];
    const index = Buffer.from(JSON.stringify({ key: this.key, matrices }));
    const preamble = Buffer.alloc(PREAMBLE_BYTES);
    MAGIC.copy(preamble);
    preamble.writeBigUInt64LE(BigInt(this.end), 16);
    preamble.writeBigUInt64LE(BigInt(index.length), 24);
    sha256(index).copy(preamble, 32);
    this.file.writeAt(index, this.end);
    this.file.writeAt(preamble, 0);
    this.file.close();
    // Whoever writes to a mapped file changes, or ends, those who have mapped it. Windows would not let go of it either.
    if (process.platform !== 'win32')
      writing(this.path, () => chmodSync(this.output.partial, 0o444));
    if (existsSync(this.path)) this.output.abort();
    else this.output.commit();
  }

  /** Removes what was written. */
  abort(): void {
    try {
      this.file.close();
    } finally {
      this.output.abort();
    }
  }
}

/** The weights of such a file, mapped and checked. */
export class PackedFileReader {
  private readonly file: PackedFile;
  private readonly matrices: ReadonlyMap<string, PackedMatrix>;
  /** Checked and not yet taken. */
  private readonly ready = new Map<string, PackedWeights>();

  /** @throws GqaError INVALID_FILE where it is not whole, or not of this key */
  constructor(path: string, key: string, files: PackedFiles) {
    this.matrices = readIndex(path, key);
    this.file = files.open(path);
    try {
      for (const matrix of this.matrices.values()) {
        const weights = this.file.weights(matrix);
        this.ready.set(matrix.name, weights);
        if (weights.bytes !== matrix.bytes || hex(files.checksum(weights)) !== matrix.checksum) {
          throw invalidFile(path, `${matrix.name} with checksum ${matrix.checksum}`, 'another');
        }
      }
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Whether processes share its memory. */
  get shared(): boolean {
    return this.file.shared;
  }

  find(name: string): { dtype: WeightDType; rows: number; columns: number } | undefined {
    return this.matrices.get(name);
  }

  /** The caller disposes of them. */
  take(name: string): PackedWeights {
    const ready = this.ready.get(name);
    this.ready.delete(name);
    return ready ?? this.file.weights(this.matrices.get(name)!);
  }

  /** What was taken stays usable. */
  close(): void {
    for (const weights of this.ready.values()) weights.dispose();
    this.ready.clear();
    this.file.dispose();
  }
}

function sha256(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest();
}

function readIndex(path: string, key: string): Map<string, PackedMatrix> {
  const file = new BinaryFile(path);
  try {
    const preamble = Buffer.alloc(PREAMBLE_BYTES);
    file.readInto(preamble, 0);
    if (!preamble.subarray(0, 16).equals(MAGIC)) throw invalidFile(path, 'packed weights', 'none');
    const offset = Number(preamble.readBigUInt64LE(16));
    const length = Number(preamble.readBigUInt64LE(24));
    if (offset + length !== file.size || length > MAX_INDEX_BYTES) {
      throw invalidFile(path, `an index of ${length} bytes at ${offset}`, `${file.size} bytes`);
    }
    const index = Buffer.alloc(length);
    file.readInto(index, offset);
    if (!sha256(index).equals(preamble.subarray(32, 64))) {
      throw invalidFile(path, 'a whole index', 'a damaged one');
    }
    return parseIndex(path, key, index);
  } finally {
    file.close();
  }
}

function parseIndex(path: string, key: string, bytes: Buffer): Map<string, PackedMatrix> {
  const index = new JsonFields(path, JSON.parse(bytes.toString('utf8')));
  if (index.text('key') !== key) throw index.wrong('key', key, index.raw('key'));
  const list = index.raw('matrices');
  if (!Array.isArray(list)) throw index.wrong('matrices', 'a list', list);
  const matrices = (list as PackedMatrix[]).map((matrix): [string, PackedMatrix] => {
    if (!(matrix.dtype in WEIGHT_DTYPE_CODE)) throw index.wrong('dtype', 'a dtype', matrix.dtype);
    return [matrix.name, matrix];
  });
  return new Map(matrices);
}
