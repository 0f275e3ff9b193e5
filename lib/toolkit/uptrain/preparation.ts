/** All that a run of training stands on: models, texts as windows, settings, and what tells it from other runs. */
import { getBackend } from '../../backend';
import { expectedError, GqaError } from '../../core/errors';
import { describe } from '../../core/validate';
import { openSource } from '../../model/checkpoint-io';
import type { CheckpointSource } from '../../model/checkpoint-io/types';
import { checkTokenIds } from '../../nn/embedding';
import { readCorpus, type Corpus } from '../corpus';
import { loadParameters, type Parameters } from './parameters';
import { readSettings, type Settings, type UptrainOptions } from './settings';
import { hashOf, hashOfParameters, type Fingerprint } from './state';
import { Trainer, type TeacherModel } from './trainer';

export interface Preparation {
  source: CheckpointSource;
  settings: Settings;
  parameters: Parameters;
  trainer: Trainer;
  corpus: Corpus;
  /** Held-back windows; null where none are asked for. */
  evalWindows: readonly Int32Array[] | null;
  fingerprint: Fingerprint;
  dispose(): void;
}

/**
 * @throws GqaError INVALID_ARGUMENT, OUT_OF_RANGE, NON_FINITE (a setting, or the tensor of a model); INVALID_FILE,
 *   UNSUPPORTED_MODEL, INVALID_TEXT, NO_TOKENIZER, OUT_OF_MEMORY
 */
export function prepare(options: UptrainOptions): Preparation {
  for (const name of ['model', 'out', 'text'] as const) requirePath(options[name], name);
  const source = openSource(options.model);
  try {
    const { config } = source;
    const settings = readSettings(options, config);
    const { window } = settings;
    const tokenizer = source.tokenizer();
    const read = (path: string): Corpus => {
      const corpus = readCorpus(path, tokenizer, { window });
      for (const ids of corpus.windows) checkTokenIds(ids, config.vocabSize);
      return corpus;
    };
    const corpus = read(options.text);
    const windows = wholeWindows(corpus, window, options.text);
    const evalWindows = options.evalText === undefined ? null : read(options.evalText).windows;
    const parameters = loadParameters(config, source.weights, settings.train);
    const teacher = options.teacher === undefined ? null : loadTeacher(options.teacher, source);
    const backend = getBackend();
    const trainer = new Trainer(backend, config, parameters, settings, windows, teacher);
    // The number of steps last: it follows from others, which shall be named first where they differ.
    const { steps, ...rest } = settings;
    const fingerprint = {
      model: hashOf(JSON.stringify(config), hashOfParameters(parameters)),
      text: hashOf(...windows.map((ids) => new Uint8Array(ids.buffer))),
      teacher: teacher === null ? 'none' : hashOfParameters(teacher.parameters),
      ...rest,
      steps,
    };
    const dispose = (): void => {
      trainer.dispose();
      source.close();
    };
    return { source, settings, parameters, trainer, corpus, evalWindows, fingerprint, dispose };
  } catch (error) {
    source.close();
    throw error;
  }
}

function requirePath(path: unknown, name: string): void {
  if (typeof path === 'string' && path !== '') return;
  throw expectedError('INVALID_ARGUMENT', `options.${name}`, 'a path', describe(path));
}

/** Only windows of full length are trained on. */
function wholeWindows({ windows }: Corpus, window: number, path: string): Int32Array[] {
  const whole = windows.filter(({ length }) => length === window);
  if (whole.length > 0) return whole;
  const [expected, received] = [`a text of ${window} tokens at least`, String(windows[0].length)];
  const message = `${path}: expected ${expected} but found ${received}`;
  throw new GqaError('INVALID_TEXT', message, { argument: path, expected, received });
}

/** A teacher speaks of the same tokens and is asked about windows as long. */
function loadTeacher(path: string, { config: student }: CheckpointSource): TeacherModel {
  const source = openSource(path);
  try {
    const { config } = source;
    if (config.vocabSize !== student.vocabSize) {
      throw expectedError(
        'INVALID_ARGUMENT',
        'options.teacher',
        `a model of ${student.vocabSize} tokens`,
        `one of ${config.vocabSize}`,
      );
    }
    return { config, parameters: loadParameters(config, source.weights, null) };
  } finally {
    source.close();
  }
}
