/** loadModel: a checkpoint on disk becomes a Model, its weights in a worker thread. */
import { requirePrecision } from '../core/precision';
import type { Precision } from '../core/precision';
import { requireInteger, requireOptions } from '../core/validate';
import { checkCacheSettings, type KvCacheSettings } from './cache-settings';
import { openCheckpoint } from './checkpoint';
import { Model } from './model';
import { checkWeightCache } from './weight-cache';
import { WorkerClient } from './worker-client';

export interface LoadOptions {
  /**
   * 'exact', the default: activations keep f32 accuracy. 'fast': linear layers may round them where that is faster, to 8
   * bits over quantised weights and to bf16 over bf16 ones.
   */
  precision?: Precision;
  kvCache?: KvCacheSettings;
  /** Tokens that prompt and answer may have together; default and maximum: what the model was made for. */
  contextLength?: number;
  /**
   * Where packed weights are kept, so that the next start maps them and processes share them: a folder, or false for
   * nowhere. Default, for models of 16 MiB and more: GQA_CACHE_DIR, else gqa in XDG_CACHE_HOME or ~/.cache.
   */
  weightCache?: string | false;
}

/**
 * Loads a model from a Hugging Face folder (config.json, safetensors, tokenizer.json) or a GGUF file.
 *
 * @throws GqaError INVALID_ARGUMENT, OUT_OF_RANGE, INVALID_DTYPE; INVALID_FILE (damaged or hostile), UNSUPPORTED_MODEL,
 *   OUT_OF_MEMORY, BACKEND_UNAVAILABLE
 */
export async function loadModel(path: string, options: LoadOptions = {}): Promise<Model> {
  requireOptions(options, 'options');
  const precision = requirePrecision(options.precision ?? 'exact');
  const cache = checkCacheSettings(options.kvCache ?? {}, precision, 'options.kvCache');
  const weightCache = checkWeightCache(options.weightCache, 'options.weightCache');
  const checkpoint = openCheckpoint(path);
  const { config } = checkpoint;
  try {
    const contextLength = requireInteger(
      options.contextLength ?? config.contextLength,
      'options.contextLength',
      1,
      config.contextLength,
    );
    // The worker loads weights while this thread builds the tokenizer.
    const starting = WorkerClient.start({
      path,
      contextLength,
      cache,
      precision,
      weightCache,
    });
    const tokenizer = await orStop(starting, () => checkpoint.tokenizer());
    const { client, facts } = await starting;
    return new Model(config, contextLength, tokenizer, client, facts);
  } finally {
    checkpoint.weights.close();
  }
}

/** Runs make; where it throws, the worker under way is ended before that is passed on. */
async function orStop<T>(
  starting: ReturnType<typeof WorkerClient.start>,
  make: () => T,
): Promise<T> {
  try {
    return make();
  } catch (error) {
    await starting.then(
      ({ client }) => client.dispose(),
      () => undefined,
    );
    throw error;
  }
}
