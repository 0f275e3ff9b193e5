/** Uptraining of converted models, off the event loop; see run.ts. */
import { runTask, type TaskControl } from '../task';
import type { UptrainResult } from './report';
import type { UptrainOptions } from './settings';

export type { TrainedPart } from './parameters';
export type { UptrainResult } from './report';
export type { Settings as UptrainSettings, UptrainOptions } from './settings';
export type { StepLoss } from './trainer';

/**
 * Trains a model of the Llama family on for alpha x budget tokens of a text and writes it to `out`, in the form and dtypes
 * of the source; gradients are f32, by native kernels. The same seed gives the same bits, whatever the threads.
 *
 * Aborted, it saves its state beside `out`, and rejects with the signal's reason; `resume` goes on from there, to the
 * same bits as if nothing had happened.
 *
 * @throws GqaError INVALID_ARGUMENT, OUT_OF_RANGE, NON_FINITE (a setting, a weight of a model; with argument 'loss' a
 *   training that diverges), INVALID_FILE, UNSUPPORTED_MODEL, INVALID_TEXT, NO_TOKENIZER, OUTPUT_EXISTS, WRITE_FAILED,
 *   RESUME_MISMATCH, OUT_OF_MEMORY
 */
export function uptrain(
  options: UptrainOptions,
  control: TaskControl = {},
): Promise<UptrainResult> {
  return runTask('uptrain', options, control);
}
