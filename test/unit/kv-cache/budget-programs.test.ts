/**
 * Random programs over a cache with a budget beside the same over one without: equal to the last bit, or refused exactly
 * where fits() said so, with nothing changed; and blocks are never more than the budget's.
 */
import fc from 'fast-check';
import { GqaError, KvCache, Tensor } from '../../../lib';
import type { KvSequence } from '../../../lib';
import { dataOf, historyOf, seedOf } from '../../support/cache-contents';
import { attended, KINDS } from '../../support/caches';
import { samples } from '../../support/samples';
import { recount } from '../../property/judge';

const { ceil, floor, max, min } = Math;

const SEQUENCES = 4;

interface Actor {
  /** In the cache with a budget, and in the other. */
  ours: KvSequence;
  twin: KvSequence;
  /** What tells each token from all others: its id and those before it. */
  ids: number[];
  /** Holds tokens of a tree one after another. */
  jumbled: boolean;
}

interface Part {
  who: number;
  tokens: number;
  id: number;
}

type Command =
  | { kind: 'step'; parts: Part[]; drafts: boolean; fork: boolean }
  | { kind: 'append'; part: Part }
  | { kind: 'new' }
  | { kind: 'fork' | 'dispose' | 'restore'; who: number }
  | { kind: 'truncate' | 'share'; who: number; tokens: number }
  | { kind: 'lookup' | 'import'; who: number; tokens: number };

/** Whether the action was done; if not, it was refused for want of room. */
function isDone(action: () => unknown): boolean {
  try {
    action();
    return true;
  } catch (error) {
    if (error instanceof GqaError && error.code === 'CAPACITY_EXCEEDED') return false;
    throw error;
  }
}

function expectEqual(what: string, ours: unknown, theirs: unknown): void {
  if (ours !== theirs) throw new Error(`${what}: ${String(ours)}, not ${String(theirs)}`);
}

class Pair {
  private readonly ours: KvCache;
  private readonly twin: KvCache;
  private readonly actors: Actor[] = [];
  refusals = 0;

  constructor(
    kind: string,
    private readonly blocks: number,
    prefixTokens: number | undefined,
  ) {
    const options = { ...KINDS[kind](), sequences: SEQUENCES };
    this.ours = new KvCache({ ...options, budgetTokens: 64 * blocks - 3, prefixTokens });
    this.twin = new KvCache({ ...options, prefixTokens: 64 * 64 });
    this.makeNew();
  }

  run(command: Command): void {
    if (command.kind === 'new') this.makeNew();
    else if (this.actors.length > 0) this.act(command);
    this.check();
  }

  private act(command: Exclude<Command, { kind: 'new' }>): void {
    if (command.kind === 'step') return this.step(command.parts, command.drafts, command.fork);
    if (command.kind === 'append') return this.append(command.part);
    const actor = this.actors[command.who % this.actors.length];
    switch (command.kind) {
      case 'fork':
        return this.fork(actor);
      case 'dispose':
        actor.ours.dispose();
        actor.twin.dispose();
        return void this.actors.splice(this.actors.indexOf(actor), 1);
      case 'restore':
        return this.restore(actor);
      case 'truncate':
        return this.truncate(actor, command.tokens);
      case 'share':
        return this.share(actor, command.tokens);
      case 'lookup':
        return this.lookup(actor.ids.slice(0, command.tokens));
      case 'import':
        return this.importPrefix(actor.ids.slice(0, command.tokens));
    }
  }

  private add(ours: KvSequence, twin: KvSequence, ids: number[], jumbled = false): void {
    this.actors.push({ ours, twin, ids, jumbled });
  }

  private get isFull(): boolean {
    return this.actors.length === SEQUENCES;
  }

  private makeNew(): void {
    if (!this.isFull) this.add(this.ours.sequence(), this.twin.sequence(), []);
  }

  private fork({ ours, twin, ids, jumbled }: Actor): void {
    if (!this.isFull) this.add(ours.fork(), twin.fork(), [...ids], jumbled);
  }

  /** What a refusal must leave as it was. */
  private get state(): string {
    const { usedBytes, sharedTokens, freeTokens } = this.ours;
    return [
      usedBytes,
      sharedTokens,
      freeTokens,
      ...this.actors.map(({ ours }) => ours.length),
    ].join();
  }

  /** Does what fits() speaks of; true where it was done. */
  private does(parts: readonly { sequence: KvSequence; tokens: number }[], action: () => unknown) {
    const before = this.state;
    const free = this.ours.freeTokens;
    const said = this.ours.fits(parts);
    expectEqual('fits', this.state, before);
    expectEqual('done as fits() said', isDone(action), said);
    if (said) return true;
    this.refusals++;
    expectEqual('after a refusal', this.state, before);
    const most = parts.reduce((sum, { tokens }) => sum + 64 * (ceil(tokens / 64) + 1), 0);
    const roomy = parts.every(({ sequence, tokens }) => tokens <= sequence.room);
    if (roomy && most <= free) throw new Error(`${most} tokens refused with ${free} free`);
    return false;
  }

  private step(given: readonly Part[], drafts: boolean, fork: boolean): void {
    const actors = [...new Set(given.map(({ who }) => this.actors[who % this.actors.length]))];
    const parts = actors.flatMap((actor, i) => {
      const tokens = min(drafts ? 8 : Infinity, given[i].tokens, actor.ours.longestChunk);
      if (tokens === 0) return [];
      const ids = Array.from({ length: tokens }, (_, t) => given[i].id + (drafts ? t : 0));
      return [{ actor, tokens, ids, tree: drafts ? ids.map((_, t) => (t >> 1) - 1) : undefined }];
    });
    // Where positions are the cache's own, trees are refused before the sinks are there.
    if (parts.length === 0 || (drafts && actors.some(({ ours }) => ours.length < 3))) return;
    const entries = (side: 'ours' | 'twin') =>
      parts.map(({ actor, tokens, tree }) => ({ sequence: actor[side], tokens, tree }));
    const take = (side: 'ours' | 'twin') => {
      const step = this[side].step(entries(side), { cascade: false });
      for (let layer = 0; layer < this[side].layers; layer++) {
        const { k, v } = this.rows(layer, parts);
        step.append(layer, k, v);
      }
      return step;
    };
    let ours: ReturnType<typeof take> | undefined;
    if (!this.does(entries('ours'), () => (ours = take('ours')))) return;
    const twin = take('twin');
    for (const { actor, ids } of parts) actor.ids.push(...ids);
    if (!drafts) return;
    parts.forEach(({ actor, tokens }, i) => {
      actor.jumbled = true;
      if (fork) this.fork(actor);
      // Rows 0 and 2 are parent and child; a fork's blocks are copied first, where there are any.
      const path = tokens > 2 ? [0, 2] : [0];
      if (!isDone(() => ours!.keep(i, path))) {
        if (this.ours.freeTokens >= 128) throw new Error('refused with blocks for copies free');
        return;
      }
      twin.keep(i, path);
      actor.ids.length -= tokens - path.length;
    });
  }

  private append({ who, tokens: count, id }: Part): void {
    const actor = this.actors[who % this.actors.length];
    const tokens = min(count, max(1, actor.ours.longestChunk));
    const ids = new Array<number>(tokens).fill(id);
    const append = (sequence: KvSequence): void => {
      for (let layer = 0; layer < this.ours.layers; layer++) {
        const { k, v } = this.rows(layer, [{ actor, ids }]);
        sequence.append(layer, k, v);
      }
    };
    if (!this.does([{ sequence: actor.ours, tokens }], () => append(actor.ours))) return;
    append(actor.twin);
    actor.ids.push(...ids);
  }

  /** Keys and values of the ids that follow those of each actor. */
  private rows(layer: number, parts: readonly { actor: Actor; ids: number[] }[]) {
    const { kvHeads, headDim, valueDim } = this.ours.storage[layer];
    const histories = parts.flatMap(({ actor, ids }) => {
      let history = actor.ids.reduce(historyOf, 17);
      return ids.map((id) => (history = historyOf(history, id)));
    });
    const tensor = (part: 'k' | 'v', dim: number) => {
      const rows = Tensor.zeros([histories.length, kvHeads, dim]);
      histories.forEach((history, t) => {
        const data = dataOf(seedOf(history, layer, part), kvHeads * dim, 'f32');
        rows.data.set(data, t * kvHeads * dim);
      });
      return rows;
    };
    return { k: tensor('k', headDim), v: tensor('v', valueDim) };
  }

  /** Whole blocks of a quantised cache are not cut open: who shared one would make a difference of rounding. */
  private truncate({ ours, twin, ids }: Actor, back: number): void {
    const wanted = max(0, ours.length - back);
    const whole = 64 * floor((back > 64 ? wanted : ours.length) / 64);
    const quantised = this.ours.groups[0].tailPool !== null;
    const cut = !quantised ? wanted : back > 64 ? whole : max(wanted, whole);
    try {
      twin.truncate(cut);
    } catch (error) {
      if (error instanceof GqaError && error.code === 'SLACK_EXCEEDED') return;
      throw error;
    }
    ours.truncate(cut);
    ids.length = cut;
  }

  private share({ ours, twin, ids, jumbled }: Actor, tokens: number): void {
    if (jumbled || ours.start > 0) return;
    const some = ids.slice(0, tokens);
    const shared = ours.share(some);
    twin.share(some);
    expectEqual('what is shared is found', this.ours.sharedPrefix(some), shared);
  }

  private lookup(ids: number[]): void {
    if (this.isFull) return;
    const said = this.ours.sharedPrefix(ids);
    const ours = this.ours.lookup(ids);
    expectEqual('found', ours.length, said);
    const twin = this.twin.lookup(ids);
    twin.truncate(ours.length);
    this.add(ours, twin, ids.slice(0, ours.length));
  }

  /** What only the other cache has. */
  private importPrefix(ids: number[]): void {
    const first = this.ours.sharedPrefix(ids) / 64;
    const end = this.twin.sharedPrefix(ids) / 64;
    const room = this.ours.freeTokens;
    const found = this.ours.importPrefix(ids, first, this.twin.exportPrefix(ids, first, end));
    expectEqual('imported', this.ours.sharedPrefix(ids), found);
    if (end > first && found === 64 * first && room >= 64 * (first + 1)) {
      if (this.ours.prefixes.budget > first) throw new Error('nothing imported');
    }
  }

  private restore({ twin, ids, jumbled }: Actor): void {
    if (this.isFull) return;
    const bytes = twin.snapshot();
    const free = this.ours.freeTokens;
    let ours: KvSequence | undefined;
    if (isDone(() => (ours = this.ours.restore(bytes)))) {
      return this.add(ours!, this.twin.restore(bytes), [...ids], jumbled);
    }
    if (free >= 64 * ceil(twin.length / 64)) throw new Error('refused with blocks free');
  }

  private check(): void {
    recount(this.ours);
    recount(this.twin);
    const held = this.ours.groups.map(({ pool }, group) => {
      if (pool.blocks > this.blocks) throw new Error(`${pool.blocks} blocks`);
      const ids = this.actors.flatMap(({ ours }) => [...ours.rings[group].main.table.ids]);
      return pool.blocks - new Set(ids.filter((id) => id >= 0)).size;
    });
    expectEqual('free tokens', this.ours.freeTokens, 64 * min(...held));
    for (const { ours, twin, ids } of this.actors) {
      expectEqual('length', ours.length, twin.length);
      expectEqual('ids', ids.length, twin.length);
      if (ours.length > 0) expectEqual('attention', attended(ours), attended(twin));
    }
  }
}

const who = fc.nat({ max: SEQUENCES - 1 });
const tokens = fc.oneof(fc.constantFrom(1, 1, 63, 64, 65, 128), fc.integer({ min: 1, max: 150 }));
const part = fc.record({ who, tokens, id: fc.nat({ max: 1 }) });
const kind = <K extends string>(...names: K[]): fc.Arbitrary<K> => fc.constantFrom(...names);

const commands: fc.Arbitrary<Command[]> = fc.array(
  fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({
        kind: kind('step'),
        parts: fc.array(part, { minLength: 1, maxLength: 4 }),
        drafts: fc.boolean(),
        fork: fc.boolean(),
      }),
    },
    { weight: 5, arbitrary: fc.record({ kind: kind('append'), part }) },
    { weight: 2, arbitrary: fc.record({ kind: kind('new') }) },
    { weight: 3, arbitrary: fc.record({ kind: kind('fork', 'dispose', 'restore'), who }) },
    { weight: 6, arbitrary: fc.record({ kind: kind('truncate', 'share'), who, tokens }) },
    { weight: 4, arbitrary: fc.record({ kind: kind('lookup', 'import'), who, tokens }) },
  ),
  { minLength: 6, maxLength: 30, size: 'max' },
);

test('a budget changes nothing but what is refused', () => {
  let refusals = 0;
  const plans = fc.record({
    kind: fc.constantFrom(...Object.keys(KINDS)),
    blocks: fc.integer({ min: 1, max: 12 }),
    prefixTokens: fc.constantFrom(undefined, undefined, 0, 130),
  });
  fc.assert(
    fc.property(plans, commands, ({ kind, blocks, prefixTokens }, program) => {
      const pair = new Pair(kind, blocks, prefixTokens);
      for (const command of program) pair.run(command);
      refusals += pair.refusals;
    }),
    { numRuns: samples(250), seed: 7, endOnFailure: false },
  );
  expect(refusals).toBeGreaterThan(samples(100));
});
