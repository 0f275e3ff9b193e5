/** The command that appends and attends to several sequences in one step, drafts as trees among them. */
import { Tensor } from '../../lib';
import type { GqaErrorCode, KvStep } from '../../lib';
import { historyOf } from '../support/cache-contents';
import type { Token } from '../support/mirror-layer';
import { FIRST_HISTORY, GROUP, Judge, type Actor } from './judge';
import type { Command, StepPart } from './programs';

const { max } = Math;

interface StepEntry {
  actor: Actor;
  tokens: Token[];
  parents: number[] | null;
}

export class Steps extends Judge {
  protected step({ parts, cascade, kept, fork }: Extract<Command, { kind: 'step' }>): void {
    const entries = parts.map((part) => this.entryOf(part));
    const given = entries.map(({ actor, tokens, parents }) => {
      const { sequence } = actor;
      return { sequence, tokens: tokens.length, tree: parents ?? undefined };
    });
    const error = this.stepError(entries);
    if (error !== undefined) return this.expecting(error, () => this.cache.step(given));
    const step = this.cache.step(given, { cascade });
    const positions = entries.flatMap(({ tokens }) => tokens.map(({ position }) => position));
    if (positions.some((position, row) => step.positions[row] !== position)) {
      throw new Error(`positions ${step.positions.join()}, not ${positions.join()}`);
    }
    for (const { actor, tokens } of entries) actor.mirror.begin(tokens);
    this.rules.layers.forEach((_, layer) => this.stepLayer(step, entries, layer));
    for (const { actor } of entries) actor.mirror.commit();
    entries.forEach((entry, index) => this.keep(step, entry, index, kept, fork));
  }

  private entryOf({ who: index, tokens: count, text: id, tree }: StepPart): StepEntry {
    const actor = this.actors[index % this.actors.length];
    const { mirror } = actor;
    if (tree === null) return { actor, tokens: this.nextTokens(mirror, count, id), parents: null };
    const start = mirror.tokens.length;
    const before = mirror.tokens.at(-1)?.history ?? FIRST_HISTORY;
    const tokens: Token[] = [];
    const parents = tree.map((number, row) => (number % (row + 1)) - 1);
    parents.forEach((parent, row) => {
      const from = parent < 0 ? { history: before, position: start - 1 } : tokens[parent];
      // Brothers differ by their id.
      const history = historyOf(from.history, 10 + row);
      tokens.push({ id: 10 + row, history, position: from.position + 1 });
    });
    return { actor, tokens, parents };
  }

  private stepError(entries: readonly StepEntry[]): GqaErrorCode | undefined {
    const seen = new Set<Actor>();
    for (const { actor, tokens, parents } of entries) {
      if (tokens.length === 0) return 'OUT_OF_RANGE';
      if (tokens.length > actor.mirror.room) return 'CAPACITY_EXCEEDED';
      if (tokens.length > actor.mirror.longestChunk) return 'OUT_OF_RANGE';
      if (parents !== null && this.isTooDeep(actor, tokens)) return 'OUT_OF_RANGE';
      if (seen.has(actor)) return 'INVALID_ARGUMENT';
      seen.add(actor);
    }
    return undefined;
  }

  /** A tree's tokens are no sinks that some of its own queries would meet turned to another position. */
  private isTooDeep({ mirror }: Actor, tokens: readonly Token[]): boolean {
    if (!this.rules.storage.turned) return false;
    const deepest = max(...tokens.map(({ position }) => position));
    return this.rules.layers.some(
      ({ sinkTokens, window }) => mirror.length < sinkTokens && deepest >= sinkTokens + window,
    );
  }

  private stepLayer(step: KvStep, entries: readonly StepEntry[], layer: number): void {
    const { kvHeads, headDim, valueDim } = this.rules.layers[layer];
    const tokens = entries.flatMap((entry) => entry.tokens);
    const { k, v } = this.tensorsOf(layer, tokens);
    step.append(layer, k, v);
    for (const entry of entries) entry.actor.mirror.layers[layer].append(entry.tokens);
    const rows = tokens.length;
    const heads = kvHeads * GROUP;
    const q = this.queriesOf(layer, rows);
    const lse = Tensor.zeros([rows, heads]);
    const out = step.attend(layer, q.tensor, undefined, { lse });
    let first = 0;
    for (const { actor, tokens: own, parents } of entries) {
      const queries = q.values.slice(
        first * heads * headDim,
        (first + own.length) * heads * headDim,
      );
      const expected =
        parents === null
          ? actor.mirror.attend(layer, queries, own.length)
          : actor.mirror.attendTree(layer, queries, parents);
      const what = `layer ${layer}, row ${first} of a step and on`;
      this.compare(what, out.data, first * heads * valueDim, lse.data, first * heads, expected);
      first += own.length;
    }
  }

  /** The tokens of a tree become those from a root down to one of them, or none. */
  private keep(
    step: KvStep,
    { actor, tokens, parents }: StepEntry,
    index: number,
    kept: number,
    fork: boolean,
  ): void {
    if (parents === null) {
      return this.expecting('INVALID_ARGUMENT', () => step.keep(index, [0]));
    }
    const { mirror } = actor;
    if (fork && !this.rules.storage.turned && this.fullError() === undefined) {
      // The fork has all tokens of the tree, one after the other, whatever becomes of the original.
      this.add(actor.sequence.fork(), mirror.clone(), true);
    }
    const path: number[] = [];
    for (let at = (kept % (tokens.length + 1)) - 1; at >= 0; at = parents[at]) path.unshift(at);
    const start = mirror.length - tokens.length;
    this.expecting('INVALID_ARGUMENT', () => step.keep(index, [...path, tokens.length]));
    const error = mirror.truncateError(start + path.length);
    this.expecting(error, () => step.keep(index, path));
    if (error !== undefined) return this.dispose(actor);
    mirror.keep(
      start,
      path.map((row) => tokens[row]),
    );
  }
}
