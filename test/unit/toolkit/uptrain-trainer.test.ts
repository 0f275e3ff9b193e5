/** Training of a tiny model step by step: it learns, to the same bits each time, and goes on where it was stopped. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { getBackend } from '../../../lib/backend';
import { Batches } from '../../../lib/toolkit/uptrain/batches';
import { rateAt } from '../../../lib/toolkit/uptrain/optimiser';
import { loadParameters, type Parameters } from '../../../lib/toolkit/uptrain/parameters';
import { readSettings, type UptrainOptions } from '../../../lib/toolkit/uptrain/settings';
import {
  loadState,
  removeState,
  saveState,
  statePath,
  type Progress,
} from '../../../lib/toolkit/uptrain/state';
import { Trainer } from '../../../lib/toolkit/uptrain/trainer';
import { Random } from '../../support/random';
import { expectRefused } from '../../support/refusals';
import { sourceOf, TINY, tinyWeights } from '../../support/tiny-training';

const WINDOW = 12;
const STEPS = 24;
const never = () => false;

/** Sequences in which each token follows from the one before: there is something to learn. */
const random = new Random(3);
const windows = Array.from({ length: 10 }, () => {
  const start = random.int(0, 12);
  return Int32Array.from({ length: WINDOW }, (_, i) => (start + 5 * i) % TINY.vocabSize);
});

const OPTIONS: UptrainOptions = {
  ...{ model: 'm', out: 'o', text: 't', alpha: 0.5, budget: 2 * STEPS * 3 * WINDOW },
  ...{ batch: 3, window: WINDOW, seed: 4 },
};

interface Training {
  trainer: Trainer;
  parameters: Parameters;
}

function training(changes: Partial<UptrainOptions> = {}, teaches = false): Training {
  const settings = readSettings({ ...OPTIONS, ...changes }, TINY);
  const parameters = loadParameters(TINY, sourceOf(tinyWeights(TINY, 8)), settings.train);
  const teacher = { config: TINY, parameters: loadParameters(TINY, sourceOf(tinyWeights(TINY, 9)), null) }; // prettier-ignore
  const taught = teaches ? teacher : null;
  return {
    parameters,
    trainer: new Trainer(getBackend(), TINY, parameters, settings, windows, taught),
  };
}

function advance({ trainer }: Training, steps: number, progress: Progress): void {
  for (let i = 0; i < steps; i++) progress.losses.push(trainer.advance(never)!);
  progress.step = trainer.step;
}

const beginning = (): Progress => ({ step: 0, losses: [], evaluations: [], seconds: 0 });
const weightsOf = ({ parameters }: Training) =>
  [...parameters.values()].map(({ weight }) => Float32Array.from(weight));

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'gqa-training-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

test.each([
  ['everything', {}, false],
  ['keys and values', { train: 'kv' as const }, false],
  ['with a teacher', { teacher: 'x', teacherShare: 0.3 }, true],
])('the loss falls: %s', (_, changes, teaches) => {
  const run = training({ learningRate: 0.02, ...changes }, teaches);
  const before = run.trainer.evaluate(windows, never)!;
  const progress = beginning();
  advance(run, STEPS, progress);
  expect(progress.losses.at(-1)!.loss).toBeLessThan(0.9 * progress.losses[0].loss);
  if (!teaches) expect(run.trainer.evaluate(windows, never)!).toBeLessThan(0.9 * before);
});

test('evaluation takes windows of any length, and counts tokens alike', () => {
  const { trainer } = training();
  const short = windows[0].slice(0, 5);
  const mean = trainer.evaluate([windows[1], windows[2], short], never)!;
  const one = (window: Int32Array) =>
    (trainer.evaluate([window], never)! * (window.length - 1)) / (2 * (WINDOW - 1) + 4);
  expect(mean).toBeCloseTo(one(windows[1]) + one(windows[2]) + one(short), 5);
});

test('the same seed gives the same bits, whatever the threads; another does not', () => {
  const run = (changes: Partial<UptrainOptions> = {}) => {
    const one = training(changes);
    advance(one, 5, beginning());
    return weightsOf(one);
  };
  const first = run();
  const backend = getBackend();
  const { threads } = backend.info;
  backend.limitThreads(1);
  try {
    expect(run()).toEqual(first);
  } finally {
    backend.limitThreads(threads);
  }
  expect(run({ seed: 5 })).not.toEqual(first);
});

test('stopped and resumed, it comes to the bits of a run in one go', () => {
  const out = join(folder, 'resumed');
  const fingerprint = { model: 'abc', seed: 4 };
  const whole = training();
  const all = beginning();
  advance(whole, STEPS, all);

  const first = training();
  const progress = beginning();
  advance(first, 7, progress);
  saveState(out, fingerprint, progress, first.parameters);
  advance(first, 2, progress);
  saveState(out, fingerprint, progress, first.parameters);

  const second = training();
  const resumed = loadState(out, fingerprint, second.parameters);
  expect(resumed).toEqual(progress);
  second.trainer.resumeAt(resumed.step, resumed.losses[0].loss);
  advance(second, STEPS - 9, resumed);
  expect(resumed.losses).toEqual(all.losses);
  expect(weightsOf(second)).toEqual(weightsOf(whole));
  removeState(out);
  expect(existsSync(statePath(out))).toBe(false);
});

test('a state of another run, or a damaged one, is refused', async () => {
  const out = join(folder, 'refused');
  const run = training();
  saveState(out, { model: 'abc', batch: 3 }, beginning(), run.parameters);
  const load = (batch: number) => () => loadState(out, { model: 'abc', batch }, run.parameters);
  await expectRefused('RESUME_MISMATCH', 'batch', load(4));
  const path = join(statePath(out), 'gqa_training.json');
  const text = readFileSync(path, 'utf8');
  for (const damaged of [
    '{',
    text.replace('"step":0', '"step":5'),
    text.replace('"version":1', '"version":9'),
  ]) {
    // prettier-ignore
    writeFileSync(path, damaged);
    await expectRefused('INVALID_FILE', /./, load(3));
  }
});

test('a cancelled step leaves the weights as they were', () => {
  const run = training();
  advance(run, 1, beginning());
  const before = weightsOf(run);
  expect(run.trainer.advance(() => true)).toBeNull();
  expect(run.trainer.step).toBe(1);
  expect(weightsOf(run)).toEqual(before);
});

test('training that diverges stops, and NaN is never taken into the weights', async () => {
  for (const [code, learningRate] of [
    ['NON_FINITE', 1e30],
    ['OUT_OF_RANGE', 10],
  ] as const) {
    const wild = training({ learningRate });
    await expectRefused(code, 'loss', () => advance(wild, STEPS, beginning()));
  }
  const weights = tinyWeights(TINY, 8);
  weights.get('model.layers.1.mlp.up_proj.weight')!.data[3] = NaN;
  await expectRefused('NON_FINITE', 'model.layers.1.mlp.up_proj.weight', () =>
    loadParameters(TINY, sourceOf(weights), 'all'),
  );
});

test('the rate rises, then falls along a cosine', () => {
  const schedule = { rate: 2, steps: 12, warmup: 2, floor: 0.1 };
  const rates = Array.from({ length: 12 }, (_, step) => rateAt(schedule, step));
  expect(rates.slice(0, 3)).toEqual([1, 2, 2]);
  expect(rates[7]).toBeCloseTo(2 * (0.1 + 0.9 / 2), 12);
  expect(rates.slice(2).every((rate, i, all) => i === 0 || rate < all[i - 1])).toBe(true);
  expect(rateAt(schedule, 12)).toBeCloseTo(0.2, 12);
});

test('an epoch takes each window once, in an order of its own', () => {
  const batches = new Batches(5, 3, 1);
  const drawn = [0, 1, 2, 3, 4].flatMap((step) => batches.of(step));
  const epochs = [drawn.slice(0, 5), drawn.slice(5, 10), drawn.slice(10)];
  for (const epoch of epochs) expect([...epoch].sort()).toEqual([0, 1, 2, 3, 4]);
  expect(epochs[0]).not.toEqual(epochs[1]);
  expect(new Batches(5, 3, 1).of(2)).toEqual(batches.of(2));
});

test('settings are checked, and defaults follow the model', async () => {
  const settings = readSettings({ ...OPTIONS, window: undefined }, TINY);
  expect(settings).toMatchObject({
    window: 32,
    train: 'all',
    learningRate: 0.025,
    teacherShare: 0,
  });
  expect(readSettings(OPTIONS, TINY).steps).toBe(STEPS);
  const refused: [string, string, Partial<Record<keyof UptrainOptions, unknown>>][] = [
    ['OUT_OF_RANGE', 'options.alpha', { alpha: 0 }],
    ['NON_FINITE', 'options.alpha', { alpha: NaN }],
    ['INVALID_ARGUMENT', 'options.budget', { budget: 1.5 }],
    ['OUT_OF_RANGE', 'options.window', { window: 33 }],
    ['OUT_OF_RANGE', 'options.batch', { batch: 0 }],
    ['OUT_OF_RANGE', 'options.learningRate', { learningRate: -1 }],
    ['INVALID_ARGUMENT', 'options.train', { train: 'some' }],
    ['INVALID_ARGUMENT', 'options.teacherShare', { teacherShare: 0.5 }],
    ['OUT_OF_RANGE', 'options.teacherShare', { teacher: 'x', teacherShare: 2 }],
  ];
  for (const [code, argument, changes] of refused) {
    const options = { ...OPTIONS, ...changes } as UptrainOptions;
    await expectRefused(code as 'OUT_OF_RANGE', argument, () => readSettings(options, TINY));
  }
});
