/**
 * Speculative decoding: drafts by prompt lookup, and where that finds nothing by a draft model. A step computes the logits
 * after every draft, and each token is chosen from its row as it would be without drafts; drafts that were other tokens
 * are dropped. So the answer is the same to the last token, greedy or sampled: a draft only says which rows to compute.
 */
import { Acceptance } from './acceptance';
import { draftLengths, type Candidate } from './draft-lengths';
import type { EngineTask } from './engine-task';
import { lookUp } from './prompt-lookup';
import type { DraftRoom, Speculator } from './speculation';
import type { ResolvedSpeculation } from './speculation-options';

/** A model that drafts for several tasks at once. */
export interface Drafter {
  /** Milliseconds a token, as measured. */
  readonly tokenMs: number;
  /** Whether it could draft for the task now. */
  ready(task: EngineTask): boolean;
  draft(wanted: ReadonlyMap<EngineTask, number>): ReadonlyMap<EngineTask, readonly number[]>;
  forget(task: EngineTask): void;
}

/** What is known of a task's drafts, by where they come from. */
interface Known {
  lookup: Acceptance;
  model: Acceptance;
  /** Where the drafts that are being checked come from. */
  last: 'lookup' | 'model';
}

interface Proposal extends Candidate {
  task: EngineTask;
  found: readonly number[];
  source: Known['last'];
}

export class Drafting implements Speculator {
  readonly totals = { drafted: 0, accepted: 0 };
  private readonly known = new WeakMap<EngineTask, Known>();

  /** @param mostDrafts tokens that the cache can roll back */
  constructor(
    private readonly options: ResolvedSpeculation,
    private readonly mostDrafts: number,
    private readonly drafter: Drafter | null,
  ) {}

  propose(
    tasks: readonly EngineTask[],
    room: DraftRoom,
  ): ReadonlyMap<EngineTask, readonly number[]> {
    const proposals = tasks.flatMap((task) => this.proposalFor(task) ?? []);
    const drafts = new Map<EngineTask, readonly number[]>();
    if (proposals.length === 0) return drafts;
    const lengths = draftLengths(proposals, tasks.length, room);
    const wanted = new Map<EngineTask, number>();
    proposals.forEach(({ task, found, source }, i) => {
      const known = this.knownOf(task);
      known.last = source;
      if (lengths[i] === 0) known[source].rest();
      else if (source === 'lookup') drafts.set(task, found.slice(0, lengths[i]));
      else wanted.set(task, lengths[i]);
    });
    if (wanted.size > 0) this.drafter!.draft(wanted).forEach((ids, task) => drafts.set(task, ids));
    return drafts;
  }

  learn(task: EngineTask, drafted: number, accepted: number): void {
    const known = this.knownOf(task);
    known[known.last].learn(drafted, accepted);
    this.totals.drafted += drafted;
    this.totals.accepted += accepted;
  }

  forget(task: EngineTask): void {
    this.drafter?.forget(task);
  }

  private proposalFor(task: EngineTask): Proposal | null {
    const { lookup, draftTokens } = this.options;
    // The last token of an answer needs no draft after it.
    const most = Math.min(task.left - 1, this.mostDrafts);
    if (most < 1) return null;
    const known = this.knownOf(task);
    const found =
      lookup === null ? [] : lookUp(task.tokens, lookup.ngram, Math.min(lookup.draft, most));
    if (found.length > 0) {
      const acceptance = known.lookup.rate;
      return { task, found, source: 'lookup', most: found.length, acceptance, cost: 0 };
    }
    if (this.drafter === null || !this.drafter.ready(task)) return null;
    const acceptance = known.model.rate;
    const cost = this.drafter.tokenMs;
    return { task, found, source: 'model', most: Math.min(draftTokens, most), acceptance, cost };
  }

  private knownOf(task: EngineTask): Known {
    let known = this.known.get(task);
    if (known === undefined) {
      known = { lookup: new Acceptance(), model: new Acceptance(), last: 'lookup' };
      this.known.set(task, known);
    }
    return known;
  }
}
