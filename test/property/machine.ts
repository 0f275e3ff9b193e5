/** Runs a program command by command, on a cache and on its mirror. */
import { attention } from '../../lib';
import type { MirrorSequence, SeenOptions } from '../support/mirror-sequence';
import { encodeSmall } from '../support/numbers';
import { isQuantised } from '../support/quantise';
import type { Actor } from './judge';
import type { Command, Plan } from './programs';
import { Steps } from './steps';

const { ceil, floor, max, min } = Math;

const MOST_SNAPSHOTS = 2;

type Of<K extends Command['kind']> = Extract<Command, { kind: K }>;

interface Saved {
  bytes: Uint8Array;
  mirror: MirrorSequence;
  jumbled: boolean;
}

export class Machine extends Steps {
  private readonly saved: Saved[] = [];
  /** Histories at the ends of all blocks that were ever shared. */
  private readonly shared = new Set<number>();

  constructor(plan: Plan) {
    super(plan);
    this.makeNew();
  }

  /** Blocks of shared prefixes that the cache may hold. */
  private get budget(): number {
    return ceil(this.plan.prefixTokens / this.rules.blockTokens);
  }

  run(command: Command): void {
    this.execute(command);
    this.checkState();
  }

  private execute(command: Command): void {
    if (command.kind === 'new') return this.makeNew();
    if (command.kind === 'restore') return this.restore(command.which);
    if (this.actors.length === 0) return;
    if (command.kind === 'step') return this.step(command);
    const actor = this.actors[command.who % this.actors.length];
    switch (command.kind) {
      case 'append':
        return this.append(actor, command.tokens, command.text);
      case 'append to some layers':
        return this.appendPart(actor, command);
      case 'attend':
        return this.attend(actor, command.layer, command.queries, command.options);
      case 'truncate': {
        const length = max(0, actor.mirror.length - command.back);
        return this.truncate(actor, length);
      }
      case 'fork':
        return this.fork(actor);
      case 'dispose':
        return this.dispose(actor);
      case 'share':
        return this.share(actor, command.tokens);
      case 'lookup':
        return this.lookup(actor, command);
      case 'snapshot':
        return this.snapshot(actor);
      case 'append what is no number':
        return this.appendNonsense(actor, command.tokens, command.values);
    }
  }

  /** At the end every sequence holds what it should, whatever the others did. */
  finish(): void {
    for (const actor of this.actors) {
      this.rules.layers.forEach((_, layer) => this.attend(actor, layer, 1, {}));
    }
    this.cache.dispose();
    if (this.cache.bytes !== 0) throw new Error('a disposed cache holds memory');
    for (const { sequence } of this.actors) {
      this.expecting('DISPOSED', () => sequence.truncate(0));
    }
  }

  private makeNew(): void {
    this.expecting(this.fullError(), () => this.add(this.cache.sequence(), this.emptyMirror()));
  }

  private append({ sequence, mirror }: Actor, count: number, id: number): void {
    const tokens = this.nextTokens(mirror, count, id);
    const layers = this.rules.layers.map((_, i) =>
      id === 0 ? i : this.rules.layers.length - 1 - i,
    );
    if (count > mirror.room) {
      const { k, v } = this.tensorsOf(0, tokens);
      return this.expecting('CAPACITY_EXCEEDED', () => sequence.append(0, k, v));
    }
    for (const layer of layers) {
      const { k, v } = this.tensorsOf(layer, tokens);
      sequence.append(layer, k, v);
    }
    mirror.append(tokens);
  }

  /** Some layers append, see their own tokens, refuse another number; then the step is finished, or dropped. */
  private appendPart(
    actor: Actor,
    { tokens: count, layers, finish }: Of<'append to some layers'>,
  ): void {
    const { sequence, mirror } = actor;
    const all = this.rules.layers.length;
    const some = min(layers, all - 1);
    if (some === 0 || count > mirror.room) return;
    const length = mirror.length;
    const tokens = this.nextTokens(mirror, count, 2);
    mirror.begin(tokens);
    for (let layer = 0; layer < some; layer++) {
      const { k, v } = this.tensorsOf(layer, tokens);
      sequence.append(layer, k, v);
      mirror.layers[layer].append(tokens);
      this.attend(actor, layer, 1, {});
      this.expecting('LAYERS_UNEVEN', () => sequence.append(layer, k, v));
    }
    const more = this.tensorsOf(all - 1, this.nextTokens(mirror, count + 1, 2));
    this.expecting('LAYERS_UNEVEN', () => sequence.append(all - 1, more.k, more.v));
    this.expecting('LAYERS_UNEVEN', () => sequence.fork());
    this.expecting('LAYERS_UNEVEN', () => sequence.share([]));
    this.expecting('LAYERS_UNEVEN', () => this.cache.step([{ sequence, tokens: 1 }]));
    this.attend(actor, all - 1, 1, {});
    const refused = mirror.truncateError(length);
    if (!finish) this.truncate(actor, length);
    if (!finish && refused === undefined) return;
    for (let layer = some; layer < all; layer++) {
      const { k, v } = this.tensorsOf(layer, tokens);
      sequence.append(layer, k, v);
      mirror.layers[layer].append(tokens);
    }
    mirror.commit();
  }

  private appendNonsense({ sequence, mirror }: Actor, count: number, values: boolean): void {
    const { k, v } = this.tensorsOf(0, this.nextTokens(mirror, count, 0));
    const { storage } = this.rules;
    if (count > mirror.room || !isQuantised(values ? storage.v : storage.k)) return;
    const { data, dtype } = values ? v : k;
    const nonsense = [NaN, Infinity, -Infinity][count % 3];
    data[data.length - 1] = dtype === 'f32' ? nonsense : encodeSmall(nonsense, dtype);
    this.expecting('NON_FINITE', () => sequence.append(0, k, v));
  }

  private truncate({ sequence, mirror }: Actor, length: number): void {
    const error = mirror.truncateError(length);
    this.expecting(error, () => sequence.truncate(length));
    if (error === undefined) mirror.truncate(length);
  }

  private attend(
    { sequence, mirror }: Actor,
    index: number,
    queries: number,
    options: SeenOptions,
  ): void {
    const layer = index % this.rules.layers.length;
    const q = this.queriesOf(layer, queries);
    const call = () => attention(q.tensor, sequence.layer(layer), { ...options, returnLse: true });
    const error = mirror.attendError(layer, queries, options);
    if (error !== undefined) return this.expecting(error, call);
    const { out, lse } = call();
    const expected = mirror.attend(layer, q.values, queries, options);
    this.compare(`layer ${layer}, ${queries} queries`, out.data, 0, lse.data, 0, expected);
  }

  private fork({ sequence, mirror, jumbled }: Actor): void {
    this.expecting(this.fullError(), () => this.add(sequence.fork(), mirror.clone(), jumbled));
  }

  private share({ sequence, mirror, jumbled }: Actor, count: number): void {
    const { blockTokens } = this.rules;
    const ids = mirror.tokens.slice(0, count).map(({ id }) => id);
    if (count > mirror.length + 20) {
      while (ids.length < count) ids.push(0);
      return this.expecting('OUT_OF_RANGE', () => sequence.share(ids));
    }
    const blocks = min(this.budget, floor(ids.length / blockTokens));
    if (jumbled || !mirror.layers.every((layer) => layer.isPristine(blocks * blockTokens))) return;
    const error = mirror.start > 0 ? 'POSITION_EVICTED' : undefined;
    this.expecting(error, () => {
      const found = sequence.share(ids);
      if (found !== blocks * blockTokens) {
        throw new Error(`${found} tokens shared, not ${blocks * blockTokens}`);
      }
    });
    if (error !== undefined) return;
    for (let b = 1; b <= blocks; b++) this.shared.add(mirror.tokens[b * blockTokens - 1].history);
    if (this.cache.sharedTokens > this.budget * blockTokens) throw new Error('beyond the budget');
    if (this.fullError() !== undefined) return;
    const again = this.cache.lookup(ids);
    if (again.length !== blocks * blockTokens) throw new Error('what was shared is not found');
    again.dispose();
  }

  private lookup({ mirror }: Actor, { tokens, more, text: id }: Of<'lookup'>): void {
    const { blockTokens } = this.rules;
    const copy = this.emptyMirror();
    for (const token of mirror.tokens.slice(0, tokens)) {
      copy.tokens.push(...this.nextTokens(copy, 1, token.id));
    }
    copy.tokens.push(...this.nextTokens(copy, more, id));
    const wanted = copy.tokens;
    let most = 0;
    while (most + blockTokens <= wanted.length) {
      if (!this.shared.has(wanted[most + blockTokens - 1].history)) break;
      most += blockTokens;
    }
    this.expecting(this.fullError(), () => {
      const sequence = this.cache.lookup(wanted.map((token) => token.id));
      const found = sequence.length;
      const all = this.shared.size <= this.budget;
      if (found % blockTokens !== 0 || found > most || (all && found < most)) {
        throw new Error(`a prefix of ${found} tokens found, not ${all ? '' : 'up to '}${most}`);
      }
      const begun = this.emptyMirror();
      begun.adopt(wanted.slice(0, found));
      this.add(sequence, begun);
    });
  }

  private snapshot({ sequence, mirror, jumbled }: Actor): void {
    const bytes = sequence.snapshot();
    this.saved.unshift({ bytes, mirror: mirror.clone(), jumbled });
    this.saved.length = min(this.saved.length, MOST_SNAPSHOTS);
  }

  private restore(which: number): void {
    if (this.saved.length === 0) return;
    const { bytes, mirror, jumbled } = this.saved[which % this.saved.length];
    this.expecting(this.fullError(), () =>
      this.add(this.cache.restore(bytes), mirror.clone(), jumbled),
    );
  }
}
