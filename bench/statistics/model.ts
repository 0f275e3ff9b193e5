/**
 * What a Monitor costs a model's decode step, all of it: linear layers, attention, what the monitor adds up. The logits must
 * be the same to the bit.
 */
import { basename } from 'node:path';
import { Monitor } from '../../lib';
import { SeededRandom } from '../../lib/core/random';
import { loadArchitecture } from '../../lib/model/arch';
import { openCheckpoint } from '../../lib/model/checkpoint';
import type { Measured } from './calls';
import { compareInTurns } from './turns';

/** Steps of a turn; each is taken back, so that all are at one context. */
const STEPS = 8;

export function measureModel(path: string, context: number): Measured {
  const { config, weights } = openCheckpoint(path);
  const model = loadArchitecture(config, weights, 'exact');
  weights.close();
  const monitor = new Monitor({ ...config, kvHeads: config.layerKvHeads });
  const random = new SeededRandom(1);
  const ids = Array.from({ length: context }, () =>
    Math.floor(random.uniform() * config.vocabSize),
  );
  const cache = model.createCache({ capacity: context + 1, dtype: 'f32' });
  const sequence = cache.sequence();
  model.forward(ids, sequence, 'last');
  const [plain, observed] = [0, 1].map(() => new Float32Array(config.vocabSize));
  const timed = (observer: Monitor | undefined, out: Float32Array): number => {
    const start = process.hrtime.bigint();
    for (let i = 0; i < STEPS; i++) {
      model.forward([ids[i]], sequence, 'last', out, observer);
      sequence.truncate(context);
    }
    return Number(process.hrtime.bigint() - start) / 1e3 / STEPS;
  };
  const comparison = compareInTurns(
    () => timed(undefined, plain),
    () => timed(monitor, observed),
  );
  const error = plain.reduce((most, x, i) => Math.max(most, Math.abs(x - observed[i])), 0);
  if (error !== 0) throw new Error(`Logits differ by ${error} where they are observed`);
  cache.dispose();
  model.dispose();
  return { ...comparison, name: basename(path), context, cache: 'f32', error };
}
