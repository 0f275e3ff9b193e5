/**
 * Uptraining, the second step of arXiv:2305.13245: a converted model is trained on for a share alpha of the tokens it was
 * trained on originally, optionally towards the distribution of the original.
 *
 * An interrupted run leaves its state beside the output and goes on from there, to the same bits.
 */
import { createSink } from '../../model/checkpoint-io';
import type { CheckpointSource } from '../../model/checkpoint-io/types';
import type { TaskContext } from '../task';
import { trainingBytes } from './memory';
import { trainedOf } from './parameters';
import { prepare, type Preparation } from './preparation';
import { modelFiles, summaryOf, type UptrainResult } from './report';
import { readPace, type UptrainOptions } from './settings';
import { checkNoState, hasState, loadState, removeState, saveState, type Progress } from './state';

/**
 * Trains and writes; a task of tasks.ts.
 *
 * @throws GqaError what prepare throws; RESUME_MISMATCH; OUTPUT_EXISTS, WRITE_FAILED; NON_FINITE or OUT_OF_RANGE for
 *   'loss' where training diverges: nothing is written then but the last state that was saved
 */
export function runUptrain(options: UptrainOptions, context: TaskContext): UptrainResult {
  const run = prepare(options);
  try {
    context.throwIfCancelled();
    // What cannot be written shall be known now, not after hours.
    openSink(options, run, {}).abort();
    const progress = begin(options, run);
    train(options, run, progress, context);
    const summary = summaryOf(options, run, progress);
    write(options, run, progress, modelFiles(run.source, summary));
    removeState(options.out);
    return summary;
  } finally {
    run.dispose();
  }
}

function openSink(options: UptrainOptions, run: Preparation, files: Record<string, string>) {
  const changed = trainedOf(run.parameters).map(({ name }) => name);
  const { out, overwrite = false } = options;
  return createSink(out, run.source, { changed, files, overwrite });
}

/** Takes up the state of an interrupted run, or begins at the beginning. */
function begin(options: UptrainOptions, run: Preparation): Progress {
  const { out, resume = false, overwrite = false } = options;
  if (resume && hasState(out)) {
    const progress = loadState(out, run.fingerprint, run.parameters);
    run.trainer.resumeAt(progress.step, progress.losses[0]?.loss ?? null);
    return progress;
  }
  if (!overwrite) checkNoState(out);
  return { step: 0, losses: [], evaluations: [], seconds: 0 };
}

/** Steps and evaluations until all are done; a cancelled run saves its state and ends the task. */
function train(
  options: UptrainOptions,
  run: Preparation,
  progress: Progress,
  context: TaskContext,
): void {
  const { trainer, settings, fingerprint, parameters } = run;
  const pace = readPace(options, settings.steps);
  const clock = new Clock(progress);
  const save = (): void => {
    clock.stop();
    saveState(options.out, fingerprint, progress, parameters);
  };
  for (;;) {
    const evaluated = evaluateWhereDue(run, progress, pace.evaluate, context);
    if (evaluated && progress.step === settings.steps) break;
    const losses = evaluated ? trainer.advance(() => context.cancelled()) : null;
    if (losses === null) {
      save();
      context.throwIfCancelled();
      continue;
    }
    progress.losses.push(losses);
    progress.step = trainer.step;
    if (progress.step % pace.save === 0 && progress.step < settings.steps) save();
    context.progress(clock.event(run, progress));
  }
  clock.stop();
}

/** Before the first step, after the last, and after every `every`; false where it was cancelled. */
function evaluateWhereDue(
  { trainer, evalWindows, settings }: Preparation,
  { step, evaluations }: Progress,
  every: number,
  context: TaskContext,
): boolean {
  const due = step % every === 0 || step === settings.steps;
  if (evalWindows === null || !due || evaluations.some((past) => past.step === step)) return true;
  const crossEntropy = trainer.evaluate(evalWindows, () => context.cancelled());
  if (crossEntropy !== null) evaluations.push({ step, crossEntropy });
  return crossEntropy !== null;
}

/** What was learnt must not be lost where it cannot be written: the state is saved, to be resumed. */
function write(
  options: UptrainOptions,
  run: Preparation,
  progress: Progress,
  files: Record<string, string>,
): void {
  try {
    const sink = openSink(options, run, files);
    try {
      for (const { name, shape, weight } of trainedOf(run.parameters)) {
        sink.write(name, { shape, dtype: 'f32', data: weight });
      }
      sink.commit();
    } catch (error) {
      sink.abort();
      throw error;
    }
  } catch (error) {
    saveState(options.out, run.fingerprint, progress, run.parameters);
    throw error;
  }
}

/** Time spent, over all parts of a run, and time left. */
class Clock {
  private started = performance.now();
  private readonly from: number;
  private spent = 0;

  constructor(private readonly progress: Progress) {
    this.from = progress.step;
  }

  /** Adds the time since it last stopped to the run's. */
  stop(): void {
    const seconds = (performance.now() - this.started) / 1000;
    this.started = performance.now();
    this.spent += seconds;
    this.progress.seconds += seconds;
  }

  event({ settings, parameters, source }: Preparation, { step, losses }: Progress) {
    this.stop();
    const { steps, batch, window } = settings;
    const perStep = this.spent / (step - this.from);
    const { crossEntropy, kl } = losses[step - 1];
    const parts = [
      `cross-entropy ${crossEntropy.toFixed(3)}`,
      ...(settings.teacherShare > 0 ? [`KL ${kl.toFixed(3)}`] : []),
      `${Math.round((batch * window) / perStep)} tokens/s`,
      `${timeText((steps - step) * perStep)} left`,
      `${megabytes(source, parameters, batch * window)} MB`,
    ];
    return { stage: 'training', done: step, total: steps, detail: parts.join(', ') };
  }
}

function megabytes(
  { config }: CheckpointSource,
  parameters: Preparation['parameters'],
  tokens: number,
): number {
  return Math.round(trainingBytes(config, parameters, tokens) / 1e6);
}

function timeText(seconds: number): string {
  const minutes = Math.floor(seconds / 60);
  if (minutes >= 120) return `${(minutes / 60).toFixed(1)} h`;
  return minutes > 0 ? `${minutes} min ${Math.floor(seconds % 60)} s` : `${Math.ceil(seconds)} s`;
}
