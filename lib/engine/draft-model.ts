/** A smaller model of the same vocabulary that drafts greedily, for several sequences in one pass. */
import type { KvCache, KvSequence } from '../kv-cache/kv-cache';
import { argmax } from '../model/sampler';
import type { LanguageModel, TokenRun } from '../model/types';
import type { Drafter } from './drafting';
import type { EngineTask } from './engine-task';

/** What the draft model has seen of a task. */
interface Seen {
  sequence: KvSequence;
  ids: number[];
  /** Of them, those known to be the task's: tokens of a text never change. */
  agreed: number;
}

/** Prompt tokens that it reads beside a step, so that it never holds the engine up for long. */
const CATCH_UP = 128;
/** Weight of the newest measurement. */
const LEARNING_RATE = 0.1;

export class DraftModel implements Drafter {
  tokenMs = 0;
  private readonly seen = new Map<EngineTask, Seen>();
  private readonly logits: Float32Array;
  private readonly vocabSize: number;

  /** The cache has a sequence for every task that can run at once, without a window. */
  constructor(
    private readonly model: LanguageModel,
    private readonly cache: KvCache,
  ) {
    this.vocabSize = model.config.vocabSize;
    this.logits = new Float32Array(cache.sequences * this.vocabSize);
  }

  /** Whether the task's text has room here, and has been read but for what one step can take. */
  ready(task: EngineTask): boolean {
    if (task.tokens.length >= this.room) return false;
    const seen = this.seenOf(task);
    const behind = task.tokens.length - seen.ids.length;
    if (behind <= CATCH_UP) return true;
    if (this.fits([{ seen, tokens: CATCH_UP }])) {
      this.feed([{ seen, ids: task.tokens.slice(seen.ids.length, seen.ids.length + CATCH_UP) }]);
    }
    return false;
  }

  draft(wanted: ReadonlyMap<EngineTask, number>): ReadonlyMap<EngineTask, readonly number[]> {
    let parts = [...wanted].map(([task, count]) => {
      const seen = this.seenOf(task);
      const most = Math.min(count, this.room - task.tokens.length);
      return { task, seen, most, drafts: [] as number[], ids: task.tokens.slice(seen.ids.length) };
    });
    const drafts = new Map(parts.map(({ task, drafts: own }) => [task, own]));
    const growths = parts.map(({ seen, ids, most }) => ({ seen, tokens: ids.length + most - 1 }));
    if (!this.fits(growths)) return drafts;
    const startedAt = performance.now();
    let rounds = 0;
    for (; parts.length > 0; rounds++) {
      const tokens = this.feed(parts);
      parts.forEach((part, i) => {
        part.drafts.push(tokens[i]);
        part.ids = [tokens[i]];
      });
      parts = parts.filter((part) => part.drafts.length < part.most);
    }
    const ms = (performance.now() - startedAt) / Math.max(1, rounds);
    this.tokenMs += (this.tokenMs === 0 ? 1 : LEARNING_RATE) * (ms - this.tokenMs);
    return drafts;
  }

  /** Tokens of the longest text. */
  private get room(): number {
    return Math.min(this.cache.capacity, this.model.config.contextLength);
  }

  forget(task: EngineTask): void {
    this.seen.get(task)?.sequence.dispose();
    this.seen.delete(task);
  }

  /** The task's sequence, cut back to what is still its text. */
  private seenOf(task: EngineTask): Seen {
    let seen = this.seen.get(task);
    if (seen === undefined) {
      seen = { sequence: this.cache.sequence(), ids: [], agreed: 0 };
      this.seen.set(task, seen);
    }
    const { ids } = seen;
    // The last token is always fed again where it was: its logits are needed. Only what was drafted can be wrong.
    const most = Math.min(ids.length, task.tokens.length - 1);
    while (seen.agreed < most && ids[seen.agreed] === task.tokens[seen.agreed]) seen.agreed++;
    if (seen.agreed < ids.length) {
      seen.sequence.truncate(seen.agreed);
      ids.length = seen.agreed;
    }
    return seen;
  }

  /** Whether the cache has room for these. */
  private fits(parts: readonly { seen: Seen; tokens: number }[]): boolean {
    return this.cache.fits(parts.map(({ seen, tokens }) => ({ sequence: seen.sequence, tokens })));
  }

  /** The most likely token after each. */
  private feed(parts: readonly { seen: Seen; ids: readonly number[] }[]): number[] {
    const tokens: number[] = [];
    let from = 0;
    while (from < parts.length) {
      let to = from;
      let rows = 0;
      while (to < parts.length && rows + parts[to].ids.length <= this.model.maxStepTokens) {
        rows += parts[to++].ids.length;
      }
      const runs = parts
        .slice(from, to)
        .map(({ seen, ids }): TokenRun => ({ sequence: seen.sequence, ids, want: 'last' }));
      this.model.step(runs, this.logits);
      for (let i = 0; i < runs.length; i++) {
        const row = this.logits.subarray(i * this.vocabSize, (i + 1) * this.vocabSize);
        tokens.push(Math.max(0, argmax(row)));
      }
      from = to;
    }
    for (const { seen, ids } of parts) seen.ids.push(...ids);
    return tokens;
  }
}
