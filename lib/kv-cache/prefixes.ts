/**
 * Prefixes that sequences have shared: a radix tree whose edges are the token ids of one block and whose nodes hold that
 * block. Nodes are as many as the budget allows; the least recently used leaf makes room for a new one, and for blocks
 * that sequences need.
 */
import { expectedError } from '../core/errors';
import { describe } from '../core/validate';
import type { KvCache } from './kv-cache';
import type { KvSequence } from './sequence';

export interface PrefixNode {
  readonly parent: PrefixNode | null;
  readonly key: string;
  readonly children: Map<string, PrefixNode>;
  /** The block's id in each layer group. */
  readonly ids: readonly number[];
}

export class Prefixes {
  private readonly root: PrefixNode = { parent: null, key: '', children: new Map(), ids: [] };
  /** From the least to the most recently used; a node comes after all that it leads to. */
  private readonly order = new Set<PrefixNode>();

  constructor(
    private readonly cache: KvCache,
    /** Token slots of a block: those of every group, which all have the same. */
    private readonly blockTokens: number,
    /** Blocks, in each group. */
    readonly budget: number,
  ) {}

  /** Tokens held. */
  get tokens(): number {
    return this.order.size * this.blockTokens;
  }

  /** See KvSequence.share. */
  share(sequence: KvSequence, tokens: ArrayLike<number>): number {
    const count = requireTokens(tokens);
    if (count > sequence.length) {
      const expected = `at most ${sequence.length} ids, the sequence's tokens,`;
      throw expectedError('OUT_OF_RANGE', 'tokens', expected, String(count));
    }
    if (sequence.start > 0) {
      const expected = 'a sequence that still holds its first token';
      const received = `one that holds positions from ${sequence.start} on`;
      throw expectedError('POSITION_EVICTED', 'sequence', expected, received);
    }
    const blocks = Math.min(this.budget, Math.floor(count / this.blockTokens));
    const path = this.walk(tokens, blocks);
    const { groups } = this.cache;
    while (path.length < blocks) {
      const ids = sequence.rings.map((ring) => ring.main.idOf(path.length));
      ids.forEach((id, group) => groups[group].pool.hold(id));
      if (this.order.size === this.budget) this.evict();
      this.add(path, tokens, ids);
    }
    this.touch(path);
    return blocks * this.blockTokens;
  }

  /** The blocks of the longest shared prefix of `tokens`, first to last. */
  find(tokens: ArrayLike<number>): readonly (readonly number[])[] {
    const blocks = Math.floor(requireTokens(tokens) / this.blockTokens);
    return this.walk(tokens, blocks).map(({ ids }) => ids);
  }

  /** Tokens that find() would find; nothing counts as used by that. */
  sharedTokens(tokens: ArrayLike<number>): number {
    const blocks = Math.floor(requireTokens(tokens) / this.blockTokens);
    return this.pathOf(tokens, blocks).length * this.blockTokens;
  }

  /** The nodes of the first `blocks` blocks of tokens, as far as there are any. */
  walk(tokens: ArrayLike<number>, blocks: number): PrefixNode[] {
    const path = this.pathOf(tokens, blocks);
    this.touch(path);
    return path;
  }

  private pathOf(tokens: ArrayLike<number>, blocks: number): PrefixNode[] {
    const path: PrefixNode[] = [];
    let node: PrefixNode | undefined = this.root;
    while (path.length < blocks) {
      node = node.children.get(this.keyOf(tokens, path.length));
      if (node === undefined) break;
      path.push(node);
    }
    return path;
  }

  /** These were used now, the last of them first. */
  touch(path: readonly PrefixNode[]): void {
    for (let i = path.length - 1; i >= 0; i--) {
      this.order.delete(path[i]);
      this.order.add(path[i]);
    }
  }

  /** Lets go of every prefix. */
  clear(): void {
    for (const node of this.order) this.release(node);
    this.order.clear();
    this.root.children.clear();
  }

  /** @internal For tests: calls visit(group, id) for each block held. */
  forEachBlock(visit: (group: number, id: number) => void): void {
    for (const { ids } of this.order) ids.forEach((id, group) => visit(group, id));
  }

  /**
   * Puts a node at the end of a path, for the block of tokens that follows it: `ids` are the block's in each group, and
   * their holder is the tree from here on. There is room for it in the budget.
   */
  add(path: PrefixNode[], tokens: ArrayLike<number>, ids: readonly number[]): void {
    const parent = path.at(-1) ?? this.root;
    const key = this.keyOf(tokens, path.length);
    const node: PrefixNode = { parent, key, children: new Map(), ids };
    parent.children.set(key, node);
    this.order.add(node);
    path.push(node);
  }

  /** Removes the node that was used longest ago: a leaf, and not one of a path just touched that is within the budget. */
  private evict(): void {
    const [oldest] = this.order;
    this.remove(oldest);
  }

  /** Evicts until `nodes` more are within the budget. A path just touched is not evicted where it and they are. */
  makeRoomFor(nodes: number): void {
    while (this.order.size + nodes > this.budget) this.evict();
  }

  /** Blocks of each group that eviction of all nodes but these would free: those that no sequence holds. */
  evictable(kept?: ReadonlySet<PrefixNode>): number[] {
    const { groups } = this.cache;
    const counts = groups.map(() => 0);
    for (const node of this.order) {
      if (kept?.has(node)) continue;
      node.ids.forEach((id, group) => {
        if (!groups[group].pool.isShared(id)) counts[group]++;
      });
    }
    return counts;
  }

  /**
   * Evicts until so many blocks of each group have become free; there are as many that can. First what frees some, the
   * least recently used leaf first; then, where nodes that nobody else holds lead to others that somebody does, those too.
   *
   * @param kept nodes that stay, and with them all that lead to them
   */
  evictFor(short: readonly number[], kept?: ReadonlySet<PrefixNode>): void {
    const { groups } = this.cache;
    const left = [...short];
    const isFreed = (id: number, group: number): boolean => !groups[group].pool.isShared(id);
    for (const useful of [true, false]) {
      for (const node of this.order) {
        if (left.every((blocks) => blocks <= 0)) return;
        if (node.children.size > 0 || kept?.has(node)) continue;
        if (useful && !node.ids.some((id, group) => left[group] > 0 && isFreed(id, group)))
          continue;
        node.ids.forEach((id, group) => {
          if (isFreed(id, group)) left[group]--;
        });
        this.remove(node);
      }
    }
  }

  private remove(node: PrefixNode): void {
    node.parent!.children.delete(node.key);
    this.order.delete(node);
    this.release(node);
  }

  private release({ ids }: PrefixNode): void {
    ids.forEach((id, group) => this.cache.groups[group].pool.drop(id));
  }

  private keyOf(tokens: ArrayLike<number>, ordinal: number): string {
    const from = ordinal * this.blockTokens;
    let key = '';
    for (let i = from; i < from + this.blockTokens; i++) key += `${tokens[i]},`;
    return key;
  }
}

/** @throws GqaError INVALID_ARGUMENT unless these are token ids */
export function requireTokens(tokens: ArrayLike<number>): number {
  const fail = (received: string): never => {
    throw expectedError('INVALID_ARGUMENT', 'tokens', 'an array of token ids', received);
  };
  const length = (tokens as ArrayLike<number> | null | undefined)?.length;
  if (typeof tokens !== 'object' || !Number.isSafeInteger(length)) return fail(describe(tokens));
  for (let i = 0; i < tokens.length; i++) {
    if (!Number.isSafeInteger(tokens[i])) return fail(`${describe(tokens[i])} at ${i}`);
  }
  return tokens.length;
}
