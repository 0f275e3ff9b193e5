/** gqa's own runner, through loadModel and generate. */
import { loadModel, type Model } from '../../../lib';
import type { ModelHandlers } from '../model-task';
import { serve } from '../protocol';
import { timeTokens } from '../model-task';

let model: Model | null = null;

const handlers: ModelHandlers = {
  async load({ path, precision, contextLength }) {
    model = await loadModel(path, { precision, contextLength, kvCache: { dtype: 'f16' } });
  },
  encode: (text) => model!.tokenizer.encode(text),
  run({ ids, tokens }) {
    const generation = model!.generate(ids, { maxTokens: tokens, temperature: 0 });
    return timeTokens(
      (async function* () {
        for await (const { token } of generation) yield token;
      })(),
      tokens,
    );
  },
};

serve({ ...handlers });
