/**
 * gqa's own runner, through loadModel and generate.
 *
 *   node gqa-model.js FOLDER      the built package whose runner it is
 */
import { join } from 'node:path';
import type * as Library from '../../../lib';
import { timeTokens, type ModelHandlers } from '../model-task';
import { serve } from '../protocol';

// Which build it is, is known only now.
// eslint-disable-next-line @typescript-eslint/no-require-imports
const { loadModel } = require(join(process.argv[2], 'dist', 'lib')) as typeof Library;

let model: Library.Model | null = null;

const handlers: ModelHandlers = {
  async load({ path, precision, contextLength }) {
    // 'fast' chooses a 16-bit cache of its own.
    const kvCache = precision === 'exact' ? { dtype: 'f16' as const } : {};
    model = await loadModel(path, { precision, contextLength, kvCache });
    return model.config.vocabSize;
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
