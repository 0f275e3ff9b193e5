/** How an engine drafts, checked once, with defaults. */
import { expectedError } from '../core/errors';
import { describe, requireInteger, requireOptions } from '../core/validate';
import type { SpeculationOptions } from './types';

export interface ResolvedSpeculation {
  /** Null: no prompt lookup. */
  lookup: { ngram: number; draft: number } | null;
  draftModel: string | null;
  /** Tokens that the draft model drafts at a time, at most. */
  draftTokens: number;
}

/** Tokens of the longest run that is looked for; of a draft. */
const NGRAM = 4;
const LOOKUP_DRAFT = 10;
const MODEL_DRAFT = 4;
const MOST_DRAFT = 32;

/** @throws GqaError INVALID_ARGUMENT, OUT_OF_RANGE, NON_FINITE */
export function resolveSpeculation(
  options: false | SpeculationOptions,
): ResolvedSpeculation | null {
  if (options === false) return null;
  const name = 'options.speculation';
  requireOptions(options, name);
  const { lookup, draftModel, draftTokens = MODEL_DRAFT } = options;
  if (draftModel !== undefined && typeof draftModel !== 'string') {
    const expected = 'a path';
    throw expectedError('INVALID_ARGUMENT', `${name}.draftModel`, expected, describe(draftModel));
  }
  const resolved = {
    lookup: lookup === undefined ? null : resolveLookup(lookup, `${name}.lookup`),
    draftModel: draftModel ?? null,
    draftTokens: requireInteger(draftTokens, `${name}.draftTokens`, 1, MOST_DRAFT),
  };
  return resolved.lookup === null && resolved.draftModel === null ? null : resolved;
}

function resolveLookup(
  lookup: NonNullable<SpeculationOptions['lookup']>,
  argument: string,
): { ngram: number; draft: number } {
  if (lookup === true) return { ngram: NGRAM, draft: LOOKUP_DRAFT };
  requireOptions(lookup, argument);
  const { ngram = NGRAM, draft = LOOKUP_DRAFT } = lookup;
  return {
    ngram: requireInteger(ngram, `${argument}.ngram`, 1, 16),
    draft: requireInteger(draft, `${argument}.draft`, 1, MOST_DRAFT),
  };
}
