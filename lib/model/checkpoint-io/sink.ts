/** Writes a checkpoint as a folder or as GGUF: changed tensors as they are given, all others from the source. */
import { copyFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { getBackend } from '../../backend';
import { expectedError } from '../../core/errors';
import { AtomicOutput } from '../../format/atomic-output';
import type { LoadedTensor } from '../../format/file';
import { GgufWriter } from '../../format/gguf-writer';
import { writeWholeFile, writing } from '../../format/output-file';
import { SafetensorsWriter } from '../../format/safetensors-writer';
import { headsRepeated } from '../repeated-heads';
import type { ModelConfig } from '../types';
import { ggufName } from '../gguf/names';
import { interleaved } from '../gguf/rows';
import { configFiles, isCopied, metadataOf } from './surroundings';
import { checkChanges, inDType, plannedConfig } from './plan';
import type { PlannedTensor } from './plan';
import { planFolder } from './plan-folder';
import { planGguf } from './plan-gguf';
import type { CheckpointSink, CheckpointSource, SinkOptions } from './types';

/** Bytes that are copied at a time. */
const COPY_BYTES = 2 ** 24;
/** What makes a folder one that a checkpoint may replace. */
const CHECKPOINT_MARK = 'config.json';

/**
 * Begins a checkpoint at `out`, a GGUF file where that ends in .gguf, else a folder.
 * @throws GqaError HEADS_NOT_DIVISIBLE, INVALID_ARGUMENT (out and source are one, or one lies in the other; a K or V
 *   projection of a layer whose heads change is not among the changed), OUTPUT_EXISTS, UNSUPPORTED_MODEL (a changed
 *   tensor of a type that cannot be written; a tensor or tokenizer that the other form has no word for), INVALID_FILE,
 *   WRITE_FAILED
 */
export function createSink(
  out: string,
  source: CheckpointSource,
  options: SinkOptions = {},
): CheckpointSink {
  const target = plannedConfig(source, options);
  const changed = new Set(options.changed ?? []);
  checkChanges(source, target, changed);
  const form = out.toLowerCase().endsWith('.gguf') ? 'gguf' : 'folder';
  const plan = (form === 'gguf' ? planGguf : planFolder)(source, target, changed);
  const output = new AtomicOutput(out, {
    kind: form === 'gguf' ? 'file' : 'folder',
    overwrite: options.overwrite,
    sources: [source.path],
    mark: CHECKPOINT_MARK,
  });
  try {
    const { partial } = output;
    const writer =
      form === 'gguf'
        ? new GgufWriter(partial, metadataOf(source, target), declared(plan))
        : beginFolder(partial, source, target, plan, options);
    return new Sink(form, source, plan, writer, output);
  } catch (error) {
    output.abort();
    throw error;
  }
}

function declared(plan: readonly PlannedTensor[]) {
  return plan.map(({ stored, storedShape, type, bytes }) => ({
    name: stored,
    shape: storedShape,
    type,
    dtype: type,
    bytes,
  }));
}

function beginFolder(
  folder: string,
  source: CheckpointSource,
  target: ModelConfig,
  plan: readonly PlannedTensor[],
  { files, shardBytes }: SinkOptions,
): SafetensorsWriter {
  const made = { ...configFiles(source, target), ...files };
  for (const [name, text] of Object.entries(made)) writeWholeFile(join(folder, name), text);
  if (source.form === 'folder') {
    for (const name of readdirSync(source.path)) {
      if (!isCopied(name) || name in made) continue;
      const to = join(folder, name);
      writing(to, () => copyFileSync(join(source.path, name), to));
    }
  }
  return new SafetensorsWriter(folder, declared(plan), { shardBytes });
}

class Sink implements CheckpointSink {
  readonly totalBytes: number;
  writtenBytes = 0;
  private readonly byName: ReadonlyMap<string, PlannedTensor>;
  private readonly toCopy: PlannedTensor[];

  constructor(
    readonly form: 'folder' | 'gguf',
    private readonly source: CheckpointSource,
    plan: readonly PlannedTensor[],
    private readonly writer: SafetensorsWriter | GgufWriter,
    private readonly output: AtomicOutput,
  ) {
    this.totalBytes = plan.reduce((sum, { bytes }) => sum + bytes, 0);
    this.byName = new Map(plan.map((tensor) => [tensor.name, tensor]));
    this.toCopy = plan.filter(({ changed }) => !changed).reverse();
  }

  write(name: string, tensor: LoadedTensor): void {
    const planned = this.byName.get(name);
    if (planned?.changed !== true) {
      throw expectedError('INVALID_ARGUMENT', name, 'a tensor declared as changed', 'another');
    }
    if (tensor.shape.join() !== planned.shape.join()) {
      const received = `[${tensor.shape.join(', ')}]`;
      throw expectedError('INVALID_SHAPE', name, `[${planned.shape.join(', ')}]`, received);
    }
    const rounded = inDType(tensor, planned.dtype!);
    const { data, dtype } = rounded;
    if (!getBackend().allBelow(data, dtype, data.length, Infinity)) {
      throw expectedError('NON_FINITE', name, `numbers that ${dtype} holds`, 'others');
    }
    this.put(planned, rounded);
  }

  copyNext(): string | null {
    const planned = this.toCopy.pop();
    if (planned === undefined) return null;
    const { name, shape, dtype, values } = planned;
    if (values !== undefined) this.put(planned, { shape, dtype: 'f32', data: values });
    else if (planned.raw) this.copyBytes(planned);
    else this.put(planned, inDType(this.source.read(name), dtype!));
    return name;
  }

  commit(files: Readonly<Record<string, string>> = {}): void {
    try {
      while (this.copyNext() !== null);
      this.writer.finish();
      if (this.form === 'folder') this.addFiles(files);
    } catch (error) {
      this.abort();
      throw error;
    }
    this.output.commit();
  }

  abort(): void {
    this.writer.closeFiles();
    this.output.abort();
  }

  private addFiles(files: Readonly<Record<string, string>>): void {
    for (const [name, text] of Object.entries(files)) {
      writeWholeFile(join(this.output.partial, name), text);
    }
  }

  /** Writes the tensor in the order and with the repetitions of the new file. */
  private put({ stored, repeated, pairedHeads }: PlannedTensor, tensor: LoadedTensor): void {
    let whole = tensor;
    if (pairedHeads !== null) whole = interleaved(whole, pairedHeads);
    if (repeated !== null) whole = headsRepeated(whole, repeated.kvHeads, repeated.repeats);
    const { buffer, byteOffset, byteLength } = whole.data;
    this.putBytes(stored, new Uint8Array(buffer, byteOffset, byteLength));
  }

  private copyBytes({ name, stored, bytes }: PlannedTensor): void {
    const { stored: from } = this.source;
    const part = new Uint8Array(Math.min(bytes, COPY_BYTES));
    for (let done = 0; done < bytes; done += part.length) {
      const piece = part.subarray(0, Math.min(part.length, bytes - done));
      if (from.form === 'gguf') from.file.readBytes(ggufName(name), piece, done);
      else from.files.get(name)!.readBytes(name, piece, done);
      this.putBytes(stored, piece);
    }
  }

  private putBytes(stored: string, bytes: Uint8Array): void {
    this.writer.write(stored, bytes);
    this.writtenBytes += bytes.length;
  }
}
