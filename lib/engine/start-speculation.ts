/** What drafts for an engine, as its options ask. */
import { expectedError } from '../core/errors';
import type { KvCache } from '../kv-cache/kv-cache';
import { openCheckpoint } from '../model/checkpoint';
import type { ModelConfig } from '../model/types';
import { loadWeights } from '../model/weight-cache';
import { DraftModel } from './draft-model';
import { Drafting } from './drafting';
import type { EngineSetup } from './protocol';
import type { Speculator } from './speculation';

/** @throws GqaError as loadModel for the draft model; INVALID_ARGUMENT where its vocabulary is another */
export function startSpeculation(
  setup: EngineSetup,
  config: ModelConfig,
  cache: KvCache,
): Speculator | null {
  const { speculation } = setup;
  if (speculation === null) return null;
  const { draftModel } = speculation;
  const drafter = draftModel === null ? null : loadDraftModel(draftModel, setup, config);
  return new Drafting(speculation, mostDrafts(cache), drafter);
}

/** Tokens that every layer can take back. */
function mostDrafts(cache: KvCache): number {
  return Math.min(...cache.groups.map(({ geometry }) => geometry.slack));
}

function loadDraftModel(path: string, setup: EngineSetup, config: ModelConfig): DraftModel {
  const checkpoint = openCheckpoint(path);
  try {
    const { vocabSize, contextLength } = checkpoint.config;
    if (vocabSize !== config.vocabSize) {
      const expected = `a model with a vocabulary of ${config.vocabSize} tokens`;
      const received = `one with ${vocabSize}`;
      throw expectedError('INVALID_ARGUMENT', 'options.speculation.draftModel', expected, received);
    }
    const { model } = loadWeights(checkpoint, setup.precision, setup.weightCache);
    const cache = model.createCache({
      dtype: setup.cache.dtype,
      capacity: Math.min(contextLength, setup.contextLength),
      sequences: setup.maxSequences,
      budgetTokens: setup.budgetTokens,
      prefixTokens: 0,
    });
    return new DraftModel(model, cache);
  } finally {
    checkpoint.weights.close();
  }
}
