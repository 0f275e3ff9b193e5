/** inspectModel: what a model's attention does with a text, and which layers are cheap to group. */
import { expectedError } from '../../core/errors';
import { describe, requireFinite, requireInteger, requireOptions } from '../../core/validate';
import { runTask, type TaskControl } from '../task';
import type { InspectReport } from './inspect';

export interface InspectOptions extends TaskControl {
  /** A text file. */
  text: string;
  /** Tokens of it that are used; default 16,384. Their hidden states are held, 4 bytes * hiddenSize each. */
  maxTokens?: number;
  /** Tokens that are read together; default 384, at most the model's context. */
  window?: number;
  /** Counts of KV heads for which grouping is measured, the largest below a layer's first; default 3, 0 for none. */
  groupings?: number;
  /** See AttentionStats; defaults 4 and 64. */
  sinkTokens?: number;
  recentTokens?: number;
  /** See Monitor; default 0.3. */
  spreadAlarm?: number;
}

const DEFAULT_TOKENS = 16_384;
const DEFAULT_WINDOW = 384;
const DEFAULT_GROUPINGS = 3;

/**
 * Takes a text through a Hugging Face folder or a .gguf file of the Llama architecture, layer by layer, in a thread of its
 * own. Nothing is written.
 *
 * @throws GqaError INVALID_ARGUMENT, OUT_OF_RANGE, NON_FINITE, INVALID_FILE, UNSUPPORTED_MODEL, INVALID_TEXT, NO_TOKENIZER,
 *   OUT_OF_MEMORY; the signal's reason
 */
export async function inspectModel(model: string, options: InspectOptions): Promise<InspectReport> {
  requireOptions(options, 'options');
  const { maxTokens = DEFAULT_TOKENS, window = DEFAULT_WINDOW } = options;
  const { groupings = DEFAULT_GROUPINGS, sinkTokens = 4, recentTokens = 64 } = options;
  const job = {
    model: requirePath(model, 'model'),
    text: requirePath(options.text, 'options.text'),
    maxTokens: requireInteger(maxTokens, 'options.maxTokens', 2),
    window: requireInteger(window, 'options.window', 2),
    groupings: requireInteger(groupings, 'options.groupings', 0),
    sinkTokens: requireInteger(sinkTokens, 'options.sinkTokens', 0),
    recentTokens: requireInteger(recentTokens, 'options.recentTokens', 0),
    spreadAlarm: requireFinite(options.spreadAlarm ?? 0.3, 'options.spreadAlarm'),
  };
  const { signal, onProgress } = options;
  return runTask('inspect', job, { signal, onProgress });
}

function requirePath(value: unknown, argument: string): string {
  if (typeof value === 'string' && value !== '') return value;
  throw expectedError('INVALID_ARGUMENT', argument, 'a path', describe(value));
}
