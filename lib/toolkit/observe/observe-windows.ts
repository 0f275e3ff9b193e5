/** A text through a loaded model, in the thread that holds it, with a Monitor watching its attention. */
import type { AttentionObserver, LanguageModel } from '../../model/types';

/**
 * Runs each window of token ids through the model, from position 0 on; `observer` sees the attention of every layer.
 * @returns false where `cancelled` said so between windows
 * @throws GqaError as LanguageModel.forward
 */
export function observeWindows(
  model: LanguageModel,
  windows: readonly ArrayLike<number>[],
  observer: AttentionObserver,
  cancelled: () => boolean = () => false,
): boolean {
  const capacity = windows.reduce((most, { length }) => Math.max(most, length), 0);
  if (capacity === 0) return true;
  const cache = model.createCache({ capacity });
  const logits = new Float32Array(model.config.vocabSize);
  try {
    for (const ids of windows) {
      if (cancelled()) return false;
      const sequence = cache.sequence();
      model.forward(ids, sequence, 'last', logits, observer);
      sequence.dispose();
    }
    return true;
  } finally {
    cache.dispose();
  }
}
