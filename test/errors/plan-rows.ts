/** Plans of models that are none, and of sizes that cannot be. */
import { join } from 'node:path';
import { plan, type PlanOptions } from '../../lib';
import { packageRoot } from '../support/package';
import type { Row } from './rows';

const MODEL = 'smollm2-135m';
const LLAMA = {
  ...{ model_type: 'llama', hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 4 },
  ...{ intermediate_size: 128, vocab_size: 100, num_key_value_heads: 2 },
};
const REPORT = {
  crossEntropy: { before: 1, after: 2 },
  bytesPerToken: { before: 23_040, after: 7680 },
};

const asked = (options: Partial<Record<keyof PlanOptions, unknown>>) => () =>
  plan({ model: MODEL, ...options } as PlanOptions);
const config = (change: Record<string, unknown>) => asked({ model: { ...LLAMA, ...change } });
const report = (change: Record<string, unknown>) => asked({ reports: [{ ...REPORT, ...change }] });

export const PLANS: Row[] = [
  ['INVALID_ARGUMENT', 'options', 'no options', () => plan(null as never)],
  ['INVALID_ARGUMENT', 'model', 'a preset that is none', asked({ model: 'smollm-135' })],
  ['INVALID_ARGUMENT', 'model', 'a path that is none', asked({ model: '/nowhere/at/all' })],
  ['INVALID_ARGUMENT', 'model', 'a model that is a number', asked({ model: 7 })],
  ['INVALID_FILE', 'model_type', 'a config with a broken type', config({ model_type: 7 })],
  ['UNSUPPORTED_MODEL', 'model_type', 'another architecture', config({ model_type: 'mamba' })],
  ['INVALID_FILE', 'hidden_size', 'a size that is missing', config({ hidden_size: undefined })],
  ['INVALID_FILE', 'num_hidden_layers', 'absurdly many layers', config({ num_hidden_layers: 1e9 })],
  ['INVALID_FILE', 'vocab_size', 'a size below 1', config({ vocab_size: 0 })],
  [
    'UNSUPPORTED_MODEL',
    'the number of KV heads',
    'KV heads that do not divide',
    config({ num_key_value_heads: 3 }),
  ],
  ['INVALID_FILE', 'gqa_kv_heads', 'KV heads of other layers', config({ gqa_kv_heads: [2] })],
  ['INVALID_FILE', 'layer_types', 'types of other layers', config({ layer_types: ['a'] })],
  [
    'INVALID_FILE',
    'num_experts_per_tok',
    'more active experts than there are',
    config({ num_local_experts: 2, num_experts_per_tok: 3 }),
  ],
  [
    'UNSUPPORTED_MODEL',
    'model_type',
    'a JSON file that is no config',
    asked({ model: join(packageRoot, 'tsconfig.json') }),
  ],
  ['INVALID_FILE', /./, 'a file that is no model', asked({ model: join(packageRoot, 'LICENSE') })],
  ['OUT_OF_RANGE', 'context', 'no tokens', asked({ context: 0 })],
  ['INVALID_ARGUMENT', 'context', 'no contexts', asked({ context: [] })],
  ['OUT_OF_RANGE', 'context', 'absurdly many tokens', asked({ context: 2 ** 40 })],
  ['OUT_OF_RANGE', 'batch', 'no sequences', asked({ batch: 0 })],
  ['OUT_OF_RANGE', 'batch', 'absurdly many sequences', asked({ batch: 1e9 })],
  [
    'OUT_OF_RANGE',
    'context',
    'a cache beyond counting',
    asked({ context: 2 ** 31 - 1, batch: 2 ** 24 }),
  ],
  ['INVALID_DTYPE', 'dtype', 'an unknown dtype', asked({ dtype: 'q2' })],
  [
    'INVALID_DTYPE',
    'dtype.v',
    'an unknown dtype of values',
    asked({ dtype: { k: 'q8', v: 'q2' } }),
  ],
  ['INVALID_ARGUMENT', 'dtype', 'no dtypes', asked({ dtype: [] })],
  ['INVALID_DTYPE', 'weights', 'an unknown dtype of weights', asked({ weights: 'int4' })],
  [
    'OUT_OF_RANGE',
    'sharedPrefix',
    'a prefix beyond the context',
    asked({ context: 9, sharedPrefix: 10 }),
  ],
  ['HEADS_NOT_DIVISIBLE', 'kvHeads', 'KV heads that divide no query heads', asked({ kvHeads: 4 })],
  ['OUT_OF_RANGE', 'memory', 'no memory', asked({ memory: 0 })],
  ['NON_FINITE', 'memory', 'a memory without end', asked({ memory: Infinity })],
  ['OUT_OF_RANGE', 'bandwidth', 'no bandwidth', asked({ bandwidth: -1 })],
  ['INVALID_FILE', 'the whole file', 'a report that is none', asked({ reports: [7] })],
  ['INVALID_FILE', 'crossEntropy', 'a report without cross-entropy', report({ crossEntropy: 7 })],
  ['INVALID_FILE', 'bytesPerToken', 'a report without bytes', report({ bytesPerToken: {} })],
  ['INVALID_FILE', 'crossEntropy', 'a report without a text', report({ crossEntropy: null })],
  ['INVALID_FILE', 'headDim', 'a report of other heads', report({ heads: 9, headDim: 32 })],
  [
    'INVALID_FILE',
    'bytesPerToken.after',
    'a report of another model',
    report({ bytesPerToken: { after: 1e9 } }),
  ],
];
