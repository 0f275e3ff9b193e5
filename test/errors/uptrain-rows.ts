/** Runs of training that must be refused. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { readCorpus } from '../../lib/toolkit/corpus';
import { loadParameters } from '../../lib/toolkit/uptrain/parameters';
import { loadState, saveState } from '../../lib/toolkit/uptrain/state';
import type { Tokenizer } from '../../lib/model/tokenizer';
import { sourceOf, TINY, tinyWeights } from '../support/tiny-training';
import type { Row } from './rows';

/** `folder` takes files. */
export function uptrainRows(folder: () => string): Row[] {
  const parametersOf = (weights = tinyWeights(TINY, 1)) =>
    loadParameters(TINY, sourceOf(weights), 'kv');
  return [
    [
      'INVALID_TEXT',
      /nothing.txt$/,
      'a text without a word',
      () => {
        const path = join(folder(), 'nothing.txt');
        writeFileSync(path, '\n');
        readCorpus(path, {} as Tokenizer, { window: 8 });
      },
    ],
    [
      'RESUME_MISMATCH',
      'batch',
      'a run that was begun with other batches',
      () => {
        const out = join(folder(), 'begun');
        const progress = { step: 0, losses: [], evaluations: [], seconds: 0 };
        saveState(out, { batch: 4 }, progress, parametersOf());
        loadState(out, { batch: 8 }, parametersOf());
      },
    ],
    [
      'NON_FINITE',
      'model.norm.weight',
      'a model with NaN among its weights',
      () => {
        const weights = tinyWeights(TINY, 1);
        weights.get('model.norm.weight')!.data[0] = NaN;
        parametersOf(weights);
      },
    ],
  ];
}
