/** Prompts, options and files that a model must refuse. */
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { loadModel, type GqaErrorCode, type KvCacheSettings, type Model } from '../../lib';
import { embeddedModel } from '../support/package';
import type { Row } from './rows';

/** A folder with this config.json over the embedded model's, and its weights. */
function folderOf(folder: string, changes: Record<string, unknown>): string {
  const path = mkdtempSync(join(folder, 'model-'));
  const config = JSON.parse(readFileSync(join(embeddedModel, 'config.json'), 'utf8')) as object;
  writeFileSync(join(path, 'config.json'), JSON.stringify({ ...config, ...changes }));
  writeFileSync(
    join(path, 'model.safetensors'),
    readFileSync(join(embeddedModel, 'model.safetensors')),
  );
  return path;
}

const SETTINGS: [GqaErrorCode, string, string, unknown][] = [
  ['INVALID_ARGUMENT', '', 'settings that are none', 7],
  ['INVALID_DTYPE', '.dtype', 'an unknown dtype of the cache', { dtype: 'q5' }],
  ['INVALID_DTYPE', '.dtype.v', 'keys without values', { dtype: { k: 'q8' } }],
  ['INVALID_ARGUMENT', '.rotate', 'a rotation that is neither', { rotate: 'on' }],
  ['INVALID_ARGUMENT', '.rotate.k', 'no rotation of keys', { rotate: { v: true } }],
  ['OUT_OF_RANGE', '.recent', 'less than no recent tokens', { dtype: 'q8', recent: -1 }],
  ['NON_FINITE', '.recent', 'endless recent tokens', { dtype: 'q8', recent: Infinity }],
  ['INVALID_ARGUMENT', '.recent', 'recent tokens of floats', { dtype: 'f16', recent: 64 }],
  ['OUT_OF_RANGE', '.window', 'an empty window', { window: 0 }],
  ['OUT_OF_RANGE', '.sinkTokens', 'less than no sinks', { window: 4, sinkTokens: -1 }],
  ['INVALID_ARGUMENT', '.positions', 'positions of no kind', { positions: 'relative' }],
];

/** `model` has a context of 20 tokens; `folder` takes files. */
export function modelRows(model: () => Model, folder: () => string): Row[] {
  const first = (prompt: unknown, options = {}) =>
    model()
      .generate(prompt as string, options)
      .next();
  return [
    ['EMPTY_PROMPT', 'prompt', 'no ids', () => first([])],
    ['EMPTY_PROMPT', 'prompt', 'logits of no ids', () => model().logits([])],
    ['CONTEXT_EXCEEDED', 'prompt', 'more ids than the context', () => first(new Array(21).fill(5))],
    [
      'CONTEXT_EXCEEDED',
      'prompt',
      'a score of more ids than the context',
      () => model().score(new Array(21).fill(5)),
    ],
    ['OUT_OF_RANGE', 'prompt[1]', 'an id beyond the vocabulary', () => first([1, 2048])],
    ['INVALID_ARGUMENT', 'prompt', 'a prompt of no kind', () => first(12)],
    [
      'OUT_OF_RANGE',
      'options.temperature',
      'a negative temperature',
      () => first('a', { temperature: -1 }),
    ],
    [
      'NON_FINITE',
      'options.temperature',
      'temperature NaN',
      () => first('a', { temperature: NaN }),
    ],
    ['OUT_OF_RANGE', 'options.topP', 'topP above 1', () => first('a', { topP: 1.5 })],
    [
      'OUT_OF_RANGE',
      'options.maxTokens',
      'a negative maxTokens',
      () => first('a', { maxTokens: -1 }),
    ],
    [
      'INVALID_ARGUMENT',
      /options\.stop/,
      'a stop that is no string',
      () => first('a', { stop: [3] }),
    ],
    ...SETTINGS.map(([code, argument, what, settings]): Row => {
      const load = () => loadModel(embeddedModel, { kvCache: settings as KvCacheSettings });
      return [code, `options.kvCache${argument}`, what, load];
    }),
    [
      'INVALID_ARGUMENT',
      'caches',
      'no kinds of cache to compare',
      () => model().compareCaches([1, 2], []),
    ],
    [
      'INVALID_DTYPE',
      'caches[1].dtype',
      'a kind of cache of no dtype',
      () => model().compareCaches([1, 2], [{}, { dtype: 'q9' as 'q8' }]),
    ],
    [
      'INVALID_ARGUMENT',
      'ids',
      'caches compared over one token',
      () => model().compareCaches([1], [{}]),
    ],
    [
      'CONTEXT_EXCEEDED',
      'prompt',
      'caches compared over more ids than the context',
      () => model().compareCaches(new Array(21).fill(5), [{ window: 3 }, {}]),
    ],
    [
      'INVALID_ARGUMENT',
      'path',
      'a path that is not there',
      () => loadModel(join(folder(), 'nothing')),
    ],
    [
      'INVALID_FILE',
      /./,
      'a folder without a model',
      () => {
        mkdirSync(join(folder(), 'empty'), { recursive: true });
        return loadModel(join(folder(), 'empty'));
      },
    ],
    [
      'INVALID_FILE',
      /./,
      'a GGUF cut short',
      () => {
        writeFileSync(join(folder(), 'short.gguf'), Buffer.from('GGUF\x03\x00\x00\x00\x01'));
        return loadModel(join(folder(), 'short.gguf'));
      },
    ],
    [
      'INVALID_FILE',
      /./,
      'a config that the weights do not fit',
      () => loadModel(folderOf(folder(), { hidden_size: 128 })),
    ],
    [
      'UNSUPPORTED_MODEL',
      /./,
      'another architecture',
      () =>
        loadModel(folderOf(folder(), { model_type: 'mamba', architectures: ['MambaForCausalLM'] })),
    ],
    [
      'NO_TOKENIZER',
      /./,
      'text for a model without tokenizer files',
      async () => {
        const bare = await loadModel(folderOf(folder(), {}));
        try {
          await bare.generate('text').next();
        } finally {
          await bare.dispose();
        }
      },
    ],
  ];
}
