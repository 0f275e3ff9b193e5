/** Gradients of a whole model in training against central differences of the float64 reference model. */
import { getBackend } from '../../../lib/backend';
import type { ModelConfig } from '../../../lib/model/types';
import { Network } from '../../../lib/toolkit/uptrain/network';
import {
  loadParameters,
  TRAINED_PARTS,
  trainedOf,
  type TrainedPart,
} from '../../../lib/toolkit/uptrain/parameters';
import { Random } from '../../support/random';
import { referenceLogits } from '../../support/reference-llama';
import {
  referenceConfig,
  referenceWeights,
  sourceOf,
  TINY,
  tinyWeights,
  withKvHeads,
  type TinyWeights,
} from '../../support/tiny-training';

const SPAN = { batch: 2, window: 5 };
const TOKENS = SPAN.batch * SPAN.window;
const STEP = 1e-4;
/** Elements of each parameter that are tried. */
const SAMPLES = 4;

const random = new Random(77);
const ids = Int32Array.from({ length: TOKENS }, () => random.int(0, 12));
const targets = ids.map((_, t) => ((t + 1) % SPAN.window === 0 ? -1 : ids[t + 1]));
const JUDGED = TOKENS - SPAN.batch;

function logProbabilities(config: ModelConfig, weights: TinyWeights, upTo: number): number[] {
  const first = Math.floor(upTo / SPAN.window) * SPAN.window;
  const prefix = Array.from(ids.subarray(first, upTo + 1));
  const logits = Array.from(
    referenceLogits(referenceConfig(config), referenceWeights(weights), prefix),
  );
  const lse = Math.log(logits.reduce((sum, x) => sum + Math.exp(x), 0));
  return logits.map((x) => x - lse);
}

interface Taught {
  config: ModelConfig;
  weights: TinyWeights;
  share: number;
}

/** Mean over the judged tokens of (1 - share) nll + share KL(teacher || model). */
function referenceLoss(config: ModelConfig, weights: TinyWeights, taught: Taught | null): number {
  let loss = 0;
  const share = taught?.share ?? 0;
  targets.forEach((target, t) => {
    if (target < 0) return;
    const logP = logProbabilities(config, weights, t);
    loss -= (1 - share) * logP[target];
    if (taught === null) return;
    const logT = logProbabilities(taught.config, taught.weights, t);
    logT.forEach((x, c) => (loss += share * Math.exp(x) * (x - logP[c])));
  });
  return loss / JUDGED;
}

function makeNetwork(config: ModelConfig, weights: TinyWeights, part: TrainedPart | null) {
  const parameters = loadParameters(config, sourceOf(weights), part);
  const sizes = { tokens: TOKENS, window: SPAN.window };
  return { parameters, network: new Network(getBackend(), config, parameters, sizes) };
}

const variants: [string, ModelConfig, number][] = [
  ['tied embeddings', TINY, 0],
  ['an output head and biases', { ...TINY, tiedEmbeddings: false, attentionBias: true }, 0],
  ['KV heads by layer, and a multi-head teacher', withKvHeads(TINY, 2, 1), 0.6],
];

test.each(variants)('%s', (_, config, share) => {
  const weights = tinyWeights(config, 5);
  const { parameters, network } = makeNetwork(config, weights, 'all');
  const teacherConfig = withKvHeads(TINY, 4, 4);
  const taught = share === 0 ? null : { config: teacherConfig, weights: tinyWeights(teacherConfig, 6), share }; // prettier-ignore
  const teacher = taught && makeNetwork(taught.config, taught.weights, null).network;

  const hidden = teacher?.forward(ids, SPAN);
  const sums = network.accumulate(ids, SPAN, {
    targets,
    weight: 1 / JUDGED,
    teacher: teacher && { head: teacher.head, hidden: hidden!, share },
  });
  const loss = ((1 - share) * sums.nll + share * sums.kl) / sums.rows;
  expect(sums.rows).toBe(JUDGED);
  expect(loss).toBeCloseTo(referenceLoss(config, weights, taught), 5);

  let largest = 0;
  let worst = 0;
  for (const { name, training } of trainedOf(parameters)) {
    const { data } = weights.get(name)!;
    for (let sample = 0; sample < SAMPLES; sample++) {
      const i = random.int(0, data.length - 1);
      const value = data[i];
      data[i] = value + STEP;
      const above = referenceLoss(config, weights, taught);
      data[i] = value - STEP;
      const below = referenceLoss(config, weights, taught);
      data[i] = value;
      const expected = (above - below) / (2 * STEP);
      largest = Math.max(largest, Math.abs(expected));
      worst = Math.max(worst, Math.abs(training.gradient[i] - expected));
    }
  }
  expect(largest).toBeGreaterThan(0.01);
  expect(worst / largest).toBeLessThan(1e-4);
});

test('gradients of a micro-batch add up to those of the whole', () => {
  const weights = tinyWeights(TINY, 5);
  const whole = makeNetwork(TINY, weights, 'all');
  const parts = makeNetwork(TINY, weights, 'all');
  const options = { weight: 1 / JUDGED, teacher: null };
  whole.network.accumulate(ids, SPAN, { ...options, targets });
  for (let b = 0; b < SPAN.batch; b++) {
    const [from, to] = [b * SPAN.window, (b + 1) * SPAN.window];
    const one = { batch: 1, window: SPAN.window };
    parts.network.accumulate(ids.slice(from, to), one, {
      ...options,
      targets: targets.slice(from, to),
    });
  }
  for (const { name, training } of trainedOf(whole.parameters)) {
    const { gradient } = parts.parameters.get(name)!.training!;
    training.gradient.forEach((g, i) => expect(gradient[i]).toBeCloseTo(g, 6));
  }
});

test.each(TRAINED_PARTS)('%s: what is trained has the same gradients, the rest none', (part) => {
  const weights = tinyWeights({ ...TINY, attentionBias: true }, 5);
  const config = { ...TINY, attentionBias: true };
  const run = (trained: TrainedPart) => {
    const { network, parameters } = makeNetwork(config, weights, trained);
    network.accumulate(ids, SPAN, { targets, weight: 1 / JUDGED, teacher: null });
    return parameters;
  };
  const all = run('all');
  const some = trainedOf(run(part));
  const patterns = {
    kv: /\.[kv]_proj\./,
    'kv+norms': /\.[kv]_proj\.|norm/,
    attention: /self_attn|norm/,
    all: /./,
  };
  const names = [...all.keys()].filter((name) => patterns[part].test(name));
  expect(some.map(({ name }) => name)).toEqual(names);
  for (const { name, training } of some) {
    expect(training.gradient).toEqual(all.get(name)!.training!.gradient);
  }
});
