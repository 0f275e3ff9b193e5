/** The next tokens of several sequences, checked: nothing has been written yet. */
import { expectedError, GqaError } from '../core/errors';
import { describe, requireBoolean, requireInteger, requireOptions } from '../core/validate';
import { checkBlocks } from './demand';
import type { Growth } from './demand';
import type { KvCache } from './kv-cache';
import { KvSequence } from './sequence';
import { TokenTree } from './tree';

export interface StepEntry {
  sequence: KvSequence;
  /** Tokens that it appends in this step, at least 1. */
  tokens: number;
  /**
   * Makes the tokens a tree instead of a chain: the row of each token's parent among them, -1 for one that follows the
   * sequence; at most 64. Each token sees what came before the step, its ancestors and itself. See KvStep.keep.
   */
  tree?: ArrayLike<number>;
}

export interface StepOptions {
  /** Whether blocks that sequences share may be read once for all of them; default true. Results differ by rounding. */
  cascade?: boolean;
}

export interface PlannedEntry {
  sequence: KvSequence;
  tokens: number;
  /** Its first row among those of the step. */
  firstRow: number;
  /** The sequence's length before the step. */
  start: number;
  tree: TokenTree | null;
  /** Says whether the sequence was cut since. */
  cuts: number;
}

export interface PlannedStep {
  entries: readonly PlannedEntry[];
  /** Rows, of all entries. */
  tokens: number;
  cascade: boolean;
}

/** What an entry is about to write. */
export function growthOf({ sequence, start, tokens }: PlannedEntry): Growth {
  return { sequence, position: start, tokens };
}

/** See KvCache.fits. */
export function stepFits(cache: KvCache, entries: readonly StepEntry[]): boolean {
  try {
    planStep(cache, entries, {});
    return true;
  } catch (error) {
    if (error instanceof GqaError && error.code === 'CAPACITY_EXCEEDED') return false;
    throw error;
  }
}

/** See KvCache.step. */
export function planStep(
  cache: KvCache,
  given: readonly StepEntry[],
  options: StepOptions,
): PlannedStep {
  requireOptions(options, 'options');
  const cascade = requireBoolean(options.cascade ?? true, 'options.cascade');
  if (!Array.isArray(given) || given.length === 0) {
    const expected = 'an array of at least one { sequence, tokens }';
    throw expectedError('INVALID_ARGUMENT', 'entries', expected, describe(given));
  }
  const entries: PlannedEntry[] = [];
  const seen = new Set<KvSequence>();
  let tokens = 0;
  given.forEach((entry: StepEntry, i) => {
    const planned = planEntry(cache, entry, `entries[${i}]`, tokens);
    if (seen.has(planned.sequence)) {
      const expected = 'a sequence once';
      throw expectedError('INVALID_ARGUMENT', `entries[${i}].sequence`, expected, 'it twice');
    }
    seen.add(planned.sequence);
    entries.push(planned);
    tokens += planned.tokens;
  });
  checkBlocks(cache, entries.map(growthOf), 'entries');
  return { entries, tokens, cascade };
}

function planEntry(
  cache: KvCache,
  entry: StepEntry,
  argument: string,
  firstRow: number,
): PlannedEntry {
  requireOptions(entry, argument);
  const { sequence, tree } = entry;
  if (!(sequence instanceof KvSequence) || sequence.cache !== cache) {
    const received = sequence instanceof KvSequence ? 'one of another' : describe(sequence);
    const expected = 'a sequence of this cache';
    throw expectedError('INVALID_ARGUMENT', `${argument}.sequence`, expected, received);
  }
  sequence.checkUsable(`${argument}.sequence`);
  sequence.checkWhole();
  const tokens = requireInteger(entry.tokens, `${argument}.tokens`, 1);
  if (tokens > sequence.room) {
    const expected = `at most ${sequence.room} tokens, what is left of the capacity,`;
    throw expectedError('CAPACITY_EXCEEDED', `${argument}.tokens`, expected, String(tokens));
  }
  if (tokens > sequence.longestChunk) {
    const expected = `at most ${sequence.longestChunk} tokens, whose rows still find all keys they see,`;
    throw expectedError('OUT_OF_RANGE', `${argument}.tokens`, expected, String(tokens));
  }
  const drafts = tree === undefined ? null : TokenTree.read(tree, tokens, `${argument}.tree`);
  if (drafts !== null) checkSinks(sequence, drafts, `${argument}.tree`);
  return {
    sequence,
    tokens,
    firstRow,
    start: sequence.length,
    tree: drafts,
    cuts: sequence.cuts,
  };
}

/**
 * Where positions are the cache's, a query meets sinks turned otherwise than the other keys once the window has passed
 * them. A tree's own tokens all meet it alike, so that none of them may be such a sink.
 */
function checkSinks(sequence: KvSequence, tree: TokenTree, argument: string): void {
  const deepest = Math.max(...tree.depths);
  for (const { storage, window, sinkTokens } of sequence.layers) {
    const depths = sinkTokens + window - sequence.length;
    if (storage.rope === null || sequence.length >= sinkTokens || deepest < depths) continue;
    const expected = `at most ${depths} tokens deep, as long as sink tokens are to come,`;
    throw expectedError('OUT_OF_RANGE', argument, expected, `${deepest + 1}`);
  }
}
