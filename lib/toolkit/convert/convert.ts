/** convertCheckpoint: a checkpoint with fewer KV heads, and what that did to it. */
import { expectedError } from '../../core/errors';
import { describe, requireBoolean, requireInteger, requireOptions } from '../../core/validate';
import type { DamageReport } from '../report/damage';
import { runTask, type TaskControl } from '../task';
import { METHODS, type Method } from './methods';
import type { ConvertJob } from './run';

export interface ConvertOptions extends TaskControl {
  /**
   * How KV heads become fewer (docs/conversion.md): 'mean', 'first', 'random', 'medoid', 'aligned', or 'fitted', which a
   * text makes better.
   */
  method: Method;
  /** KV heads of all layers, or of each; they divide those that a layer has. */
  kvHeads: number | readonly number[];
  /** Whether similarity decides which heads share a group, instead of adjacency; default false. */
  regroup?: boolean;
  /** A text file to measure the damage with; without one the report has only errors of weights. */
  text?: string;
  /** A text file for 'fitted' to look at; default: `text`. */
  calibration?: string;
  /** Of 'random'; default 0. */
  seed?: number;
  /** Whether an output that is there may be replaced; default false. */
  overwrite?: boolean;
  /** Tokens of each text that are used; default 65,536. Their hidden states are held, 4 bytes * hiddenSize each, up to three times. */
  maxTokens?: number;
  /** Tokens that are read together; default 384, at most the model's context. */
  window?: number;
}

const DEFAULT_TOKENS = 65_536;
const DEFAULT_WINDOW = 384;

/**
 * Writes `input` (a Hugging Face folder or a .gguf file of the Llama architecture) with fewer KV heads to `output`: a
 * GGUF file where that ends in .gguf, else a folder. In a thread of its own, layer by layer, dtypes kept; nothing is at
 * `output` before it is whole.
 *
 * @throws GqaError INVALID_ARGUMENT, OUT_OF_RANGE, HEADS_NOT_DIVISIBLE, INVALID_SHAPE (a plan for other layers),
 *   INVALID_FILE (also missing or misshapen tensors), NON_FINITE (weights that are not numbers), UNSUPPORTED_MODEL (types
 *   that cannot be written), INVALID_TEXT, NO_TOKENIZER, OUTPUT_EXISTS, WRITE_FAILED, OUT_OF_MEMORY; the signal's reason
 */
export async function convertCheckpoint(
  input: string,
  output: string,
  options: ConvertOptions,
): Promise<DamageReport> {
  requireOptions(options, 'options');
  const { method, regroup = false, seed = 0, overwrite = false } = options;
  const job: ConvertJob = {
    input: requirePath(input, 'input'),
    output: requirePath(output, 'output'),
    method: requireMethod(method),
    kvHeads: requireKvHeads(options.kvHeads),
    regroup: requireBoolean(regroup, 'options.regroup'),
    text: optionalPath(options.text, 'options.text'),
    calibration: optionalPath(options.calibration, 'options.calibration'),
    seed: requireInteger(seed, 'options.seed', 0),
    overwrite: requireBoolean(overwrite, 'options.overwrite'),
    maxTokens: requireInteger(options.maxTokens ?? DEFAULT_TOKENS, 'options.maxTokens', 2),
    window: requireInteger(options.window ?? DEFAULT_WINDOW, 'options.window', 2),
  };
  const { signal, onProgress } = options;
  return runTask('convert', job, { signal, onProgress });
}

function requirePath(value: unknown, argument: string): string {
  if (typeof value === 'string' && value !== '') return value;
  throw expectedError('INVALID_ARGUMENT', argument, 'a path', describe(value));
}

function optionalPath(value: unknown, argument: string): string | null {
  return value === undefined ? null : requirePath(value, argument);
}

function requireMethod(value: unknown): Method {
  const found = METHODS.find((method) => method === value);
  if (found !== undefined) return found;
  const expected = `one of ${METHODS.join(', ')}`;
  throw expectedError('INVALID_ARGUMENT', 'options.method', expected, describe(value));
}

function requireKvHeads(value: unknown): number | number[] {
  if (!Array.isArray(value)) return requireInteger(value, 'options.kvHeads', 1);
  return value.map((count, i) => requireInteger(count, `options.kvHeads[${i}]`, 1));
}
