/**
 * A checkpoint's weights in memory: mapped from the cache folder where they are, else packed, written there and mapped.
 * Nothing that is wrong with the folder keeps a model from loading: its weights are then packed into the process's own
 * memory, and the facts say why.
 */
import { createHash } from 'node:crypto';
import { rmSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { getBackend } from '../../backend';
import { WEIGHT_LAYOUT, type PackedFiles } from '../../backend/contract';
import { expectedError, GqaError } from '../../core/errors';
import type { Precision } from '../../core/precision';
import { describe } from '../../core/validate';
import { loadArchitecture } from '../arch';
import type { Checkpoint } from '../checkpoint';
import type { LanguageModel, WeightSource } from '../types';
import { checkpointPaths, contentsOf } from './contents';
import {
  cacheLimit,
  defaultFolder,
  makeFolder,
  makeRoom,
  markUsed,
  WEIGHTS_EXTENSION,
} from './folder';
import { PackedFileReader, PackedFileWriter } from './packed-file';
import { MappedSource, PackingSource } from './sources';

/** A folder, false for none, undefined for the default folder where a model is large enough to be worth it. */
export type WeightCacheChoice = string | false | undefined;

export interface WeightFacts {
  /** 'cache': in a mapped file, which all processes share. 'packed': in this process's own memory. */
  source: 'cache' | 'packed';
  /** The file; null where the source is 'packed'. */
  path: string | null;
  /** Why, for people. */
  reason: string;
}

export interface LoadedWeights {
  model: LanguageModel;
  weights: WeightFacts;
}

/** @throws GqaError INVALID_ARGUMENT */
export function checkWeightCache(value: unknown, argument: string): WeightCacheChoice {
  if (value === undefined || value === false) return value;
  if (typeof value === 'string' && value !== '') return resolve(value);
  throw expectedError('INVALID_ARGUMENT', argument, 'a folder, or false', describe(value));
}

/** Smaller models are packed in a few milliseconds. */
const SMALL_BYTES = 2 ** 24;

/** @throws GqaError as loadArchitecture; OUT_OF_RANGE for GQA_CACHE_LIMIT_GB */
export function loadWeights(
  checkpoint: Checkpoint,
  precision: Precision,
  choice: WeightCacheChoice,
): LoadedWeights {
  const loading = new Loading(checkpoint, precision);
  const { packedFiles, info } = getBackend();
  if (choice === false) return loading.packed('the weight cache was not wanted');
  if (packedFiles === null) return loading.packed(`the ${info.kind} backend maps no weights`);
  const bytes = checkpointBytes(checkpoint);
  if (choice === undefined && bytes < SMALL_BYTES) {
    return loading.packed('models below 16 MiB are cached where asked for only');
  }
  let file: CachedWeights;
  try {
    file = new CachedWeights(checkpoint, choice ?? defaultFolder(), packedFiles);
  } catch (error) {
    return loading.packed(unusable(error));
  }
  const found = file.open();
  return typeof found === 'string'
    ? loading.filled(file, bytes, found)
    : loading.mapped(found, file.path, 'found in the cache');
}

/** The ways to load one checkpoint. */
class Loading {
  constructor(
    private readonly checkpoint: Checkpoint,
    private readonly precision: Precision,
  ) {}

  packed(reason: string, model = this.load(this.checkpoint.weights)): LoadedWeights {
    return { model, weights: { source: 'packed', path: null, reason } };
  }

  /** Closes the reader: layers keep what they took. */
  mapped(reader: PackedFileReader, path: string, reason: string): LoadedWeights {
    try {
      const model = this.load(new MappedSource(this.checkpoint.weights, reader));
      markUsed(path);
      const how = reader.shared ? reason : `${reason}; read, for this system does not map it`;
      return { model, weights: { source: 'cache', path, reason: how } };
    } finally {
      reader.close();
    }
  }

  /** Packs, writes, and maps what was written, so that this process's own copy can go. */
  filled(file: CachedWeights, bytes: number, why: string): LoadedWeights {
    let writer: PackedFileWriter;
    try {
      writer = file.writer(bytes);
    } catch (error) {
      return this.packed(unusable(error));
    }
    let model: LanguageModel | null = null;
    try {
      const source = new PackingSource(this.checkpoint.weights, writer);
      model = this.load(source);
      if (source.failure !== null) throw source.failure;
      writer.commit();
    } catch (error) {
      writer.abort();
      if (model === null) throw error;
      return this.packed(unusable(error), model);
    }
    const reader = file.open();
    if (typeof reader === 'string') return this.packed(reader, model);
    model.dispose();
    return this.mapped(reader, file.path, `packed and written: ${why}`);
  }

  private load(weights: WeightSource): LanguageModel {
    return loadArchitecture(this.checkpoint.config, weights, this.precision);
  }
}

/** What the system says of a folder or file that cannot be used; anything else is a fault of this package. */
function unusable(error: unknown): string {
  const known =
    error instanceof GqaError && (error.code === 'WRITE_FAILED' || error.code === 'OUTPUT_EXISTS');
  if (!known && (error as NodeJS.ErrnoException).syscall === undefined) throw error;
  return (error as Error).message;
}

/** The place of one checkpoint's packed weights. */
class CachedWeights {
  readonly path: string;
  private readonly key: string;

  /** @throws GqaError WRITE_FAILED, OUT_OF_RANGE; as node:fs */
  constructor(
    checkpoint: Checkpoint,
    private readonly folder: string,
    private readonly files: PackedFiles,
  ) {
    cacheLimit();
    makeFolder(folder);
    this.key = cacheKey(checkpoint, folder);
    this.path = join(folder, this.key.slice(0, 32) + WEIGHTS_EXTENSION);
  }

  /** The file, checked, or why there is none; a damaged one is removed. @throws GqaError OUT_OF_MEMORY */
  open(): PackedFileReader | string {
    try {
      if (statSync(this.path, { throwIfNoEntry: false }) === undefined) return 'not in the cache';
      return new PackedFileReader(this.path, this.key, this.files);
    } catch (error) {
      if (error instanceof GqaError && error.code === 'OUT_OF_MEMORY') throw error;
      this.remove();
      return (error as Error).message;
    }
  }

  /** @throws GqaError WRITE_FAILED */
  writer(bytes: number): PackedFileWriter {
    makeRoom(this.folder, bytes);
    return new PackedFileWriter(this.path, this.key, this.files);
  }

  private remove(): void {
    try {
      rmSync(this.path, { force: true });
    } catch {
      // A folder that cannot be written: what is written next will not get there either.
    }
  }
}

function checkpointBytes(checkpoint: Checkpoint): number {
  return checkpointPaths(checkpoint).reduce((sum, path) => sum + statSync(path).size, 0);
}

/**
 * What packed weights depend on: the contents of all files (of a folder also its config, and which tensor lies in which
 * file), what packing makes of them, and on which instruction set.
 */
function cacheKey(checkpoint: Checkpoint, folder: string): string {
  const { isa } = getBackend().info;
  return createHash('sha256')
    .update(JSON.stringify({ layout: WEIGHT_LAYOUT, isa, ...contentsOf(checkpoint, folder) }))
    .digest('hex');
}
