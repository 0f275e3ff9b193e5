/** What a run of training was asked to do, checked, with all that was left out filled in. */
import { expectedError } from '../../core/errors';
import { requireFinite, requireInteger, requireOptions } from '../../core/validate';
import type { ModelConfig } from '../../model/types';
import { requirePositive } from '../../nn/inputs';
import { TRAINED_PARTS, type TrainedPart } from './parameters';

export interface UptrainOptions {
  /** The model to train on: a Hugging Face folder or a GGUF file. */
  model: string;
  /** Where the trained one goes, in the same dtypes: a folder, or a file ending in .gguf. */
  out: string;
  /** Text file; documents end with a line `<|end|>`. */
  text: string;
  /** Share of the budget that is spent; the GQA paper's is 0.05. */
  alpha: number;
  /** Tokens that the model was trained on originally. */
  budget: number;
  /** The original, whose distribution is learnt too: a checkpoint with the same tokens. */
  teacher?: string;
  /** Of KL(teacher || model) in the loss, 0 .. 1; default 0.5 with a teacher. */
  teacherShare?: number;
  /** Default 'all'. */
  train?: TrainedPart;
  /** The highest of the schedule; default 0.2 / hidden size: AdamW's best rate falls as the width grows. */
  learningRate?: number;
  /** Windows a step; default 4. */
  batch?: number;
  /** Tokens of a window; default 384, or what the model was made for where that is less. */
  window?: number;
  /** Of the order of windows. Default 0. */
  seed?: number;
  /** Continue what an earlier, interrupted run with the same settings left beside `out`. */
  resume?: boolean;
  /** Replace an output, or an interrupted run, that is there. */
  overwrite?: boolean;
  /** Steps between two savings of the state of training. Default 50. */
  saveEvery?: number;
  /** Held-back text: cross-entropy on it before, after and between. */
  evalText?: string;
  /** Steps between two evaluations; default: a tenth of the run. */
  evalEvery?: number;
}

/** What decides the bits of the result beside model and text. */
export interface Settings {
  train: TrainedPart;
  steps: number;
  batch: number;
  window: number;
  learningRate: number;
  warmup: number;
  decay: number;
  seed: number;
  /** 0 without a teacher. */
  teacherShare: number;
}

const DEFAULT_WINDOW = 384;
const DEFAULT_BATCH = 4;
/** The product of rate and width: 1e-3 at a hidden size of 200, 5e-5 at 4,096. */
const RATE_TIMES_WIDTH = 0.2;
const DEFAULT_TEACHER_SHARE = 0.5;
/** Of all steps. */
const WARMUP_SHARE = 0.05;
const DECAY = 0.1;
const DEFAULT_SAVE_EVERY = 50;

/** @throws GqaError INVALID_ARGUMENT, OUT_OF_RANGE, NON_FINITE */
export function readSettings(options: UptrainOptions, config: ModelConfig): Settings {
  requireOptions(options, 'options');
  const { train = 'all', teacher } = options;
  if (!TRAINED_PARTS.includes(train)) {
    throw expectedError('INVALID_ARGUMENT', 'options.train', TRAINED_PARTS.join(', '), String(train)); // prettier-ignore
  }
  const alpha = requirePositive(options.alpha, 'options.alpha');
  const budget = requireInteger(options.budget, 'options.budget', 1);
  const longest = config.contextLength;
  const window = requireInteger(
    options.window ?? Math.min(DEFAULT_WINDOW, longest),
    'options.window',
    2,
    longest,
  );
  const batch = requireInteger(options.batch ?? DEFAULT_BATCH, 'options.batch', 1);
  const steps = Math.max(1, Math.ceil((alpha * budget) / (batch * window)));
  if (!Number.isSafeInteger(steps)) {
    throw expectedError('OUT_OF_RANGE', 'options.budget', 'fewer tokens', String(budget));
  }
  const { teacherShare = teacher === undefined ? 0 : DEFAULT_TEACHER_SHARE } = options;
  if (teacher === undefined && teacherShare !== 0) {
    throw expectedError('INVALID_ARGUMENT', 'options.teacherShare', 'a teacher', 'none');
  }
  return {
    train,
    steps,
    batch,
    window,
    learningRate: requirePositive(
      options.learningRate ?? RATE_TIMES_WIDTH / config.hiddenSize,
      'options.learningRate',
    ),
    warmup: Math.max(1, Math.round(WARMUP_SHARE * steps)),
    decay: DECAY,
    seed: requireInteger(options.seed ?? 0, 'options.seed', 0),
    teacherShare: requireShare(teacherShare, 'options.teacherShare'),
  };
}

/** Steps between savings and between evaluations, which change no bit. */
export function readPace(
  options: UptrainOptions,
  steps: number,
): { save: number; evaluate: number } {
  return {
    save: requireInteger(options.saveEvery ?? DEFAULT_SAVE_EVERY, 'options.saveEvery', 1),
    evaluate: requireInteger(
      options.evalEvery ?? Math.max(1, Math.ceil(steps / 10)),
      'options.evalEvery',
      1,
    ),
  };
}

function requireShare(value: unknown, argument: string): number {
  const share = requireFinite(value, argument);
  if (share >= 0 && share <= 1) return share;
  throw expectedError('OUT_OF_RANGE', argument, 'a share from 0 to 1', String(share));
}
