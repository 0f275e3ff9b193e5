/** Starts of a model over a folder of packed weights. */
import { readdirSync } from 'node:fs';
import { openCheckpoint } from '../../lib/model/checkpoint';
import { loadWeights, type WeightFacts } from '../../lib/model/weight-cache';

const IDS = [1, 5, 9, 200, 1042];

export interface Start {
  facts: WeightFacts;
  /** After a few tokens. */
  logits: Float32Array;
}

/** One start in this thread, over and done with. */
export function startModel(path: string, folder: string | false): Start {
  const opened = openCheckpoint(path);
  try {
    const { model, weights: facts } = loadWeights(opened, 'exact', folder);
    try {
      const cache = model.createCache({ capacity: 16 });
      const logits = model.forward(IDS, cache.sequence(), 'last');
      cache.dispose();
      return { facts, logits };
    } finally {
      model.dispose();
    }
  } finally {
    opened.weights.close();
  }
}

/** Names of files in a folder that end so. */
export function filesEnding(folder: string, end: string): string[] {
  return readdirSync(folder).filter((name) => name.endsWith(end));
}
