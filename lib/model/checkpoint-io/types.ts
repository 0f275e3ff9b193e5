/**
 * Checkpoints as the toolkit reads and writes them: named tensors in their own dtype, with the files around them, be it
 * a Hugging Face folder or a GGUF file. Names are Hugging Face's, rows of Q and K are in half-split order, and keys and
 * values have as many heads as the layer truly has, whatever the form.
 *
 *   const source = openSource(path);
 *   const sink = createSink(out, source, { layerKvHeads, changed: [...names] });
 *   try {
 *     for (const name of changed) sink.write(name, make(source.read(name)));
 *     sink.commit(); // what was not declared as changed is copied
 *   } catch (error) {
 *     sink.abort();
 *     throw error;
 *   }
 */
import type { FloatDType } from '../../core/dtype';
import type { LoadedTensor } from '../../format/file';
import type { StoredFolder, StoredGguf } from '../checkpoint';
import type { JsonObject } from '../json-fields';
import type { Tokenizer } from '../tokenizer';
import type { ModelConfig, WeightSource } from '../types';

export interface SourceTensor {
  readonly name: string;
  /** Row-major, [out, in] of a matrix; of a K or V projection with the layer's true number of heads. */
  readonly shape: readonly number[];
  /** Null where it is stored in another type than these, as GGUF's blocks are. */
  readonly dtype: FloatDType | null;
  /** The file's name of the type: 'BF16', 'Q4_0'. */
  readonly type: string;
}

export interface CheckpointSource {
  readonly path: string;
  readonly form: 'folder' | 'gguf';
  /** @internal The files. */
  readonly stored: StoredFolder | StoredGguf;
  readonly config: ModelConfig;
  /** config.json as it is, or made from GGUF metadata. @throws GqaError UNSUPPORTED_MODEL where the metadata say more than it can */
  readonly configJson: JsonObject;
  /** Every tensor, by its name, in the order of the model: embedding, layers, final norm, output head, others. */
  readonly tensors: ReadonlyMap<string, SourceTensor>;
  /** The same as the runner reads it, for loading blocks and layers. */
  readonly weights: WeightSource;
  /** One that refuses text where the checkpoint has none. */
  tokenizer(): Tokenizer;
  /** The tensor, widened to f32 where dtype is null. @throws GqaError INVALID_FILE, UNSUPPORTED_MODEL, OUT_OF_MEMORY */
  read(name: string): LoadedTensor;
  close(): void;
}

export interface SinkOptions {
  /** KV heads of each layer; default: the source's. */
  layerKvHeads?: readonly number[];
  /** Names of the tensors that will be written; all others are copied from the source. */
  changed?: readonly string[];
  /** Further files by name, such as README.md; beside a GGUF file only its text can be kept: they are left out there. */
  files?: Readonly<Record<string, string>>;
  /** Whether an output that is there may be replaced. */
  overwrite?: boolean;
  /** Bytes of tensors in a safetensors file; default 5 GB. */
  shardBytes?: number;
}

/** A checkpoint in the making: nothing is at its path before commit. */
export interface CheckpointSink {
  readonly form: 'folder' | 'gguf';
  /** Bytes of tensors, altogether and written so far. */
  readonly totalBytes: number;
  readonly writtenBytes: number;
  /**
   * Writes a tensor that was declared as changed, rounded to the dtype that it has in the source. K and V have the new
   * number of heads: [layerKvHeads[i] * headDim, hiddenSize].
   * @throws GqaError INVALID_SHAPE, NON_FINITE (also what f16 cannot hold), INVALID_ARGUMENT (not declared, or written
   *   before), WRITE_FAILED
   */
  write(name: string, tensor: LoadedTensor): void;
  /** Copies the next tensor that was not declared as changed, and returns its name; null when all are copied. */
  copyNext(): string | null;
  /**
   * Copies what is still to be copied, adds `files` as SinkOptions does and puts the checkpoint into its place.
   * @throws GqaError INVALID_ARGUMENT where a declared tensor was not written, OUTPUT_EXISTS, WRITE_FAILED
   */
  commit(files?: Readonly<Record<string, string>>): void;
  /** Removes what was written; safe to call at any time, after commit too. */
  abort(): void;
}
