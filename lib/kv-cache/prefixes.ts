/**
 * Prefixes that sequences have shared: a radix tree whose edges are the token ids of one block and whose nodes hold that
 * block. Nodes are as many as the budget allows; the least recently used leaf makes room for a new one.
 */
import { expectedError } from '../core/errors';
import { describe } from '../core/validate';
import type { KvCache } from './kv-cache';
import type { KvSequence } from './sequence';

interface Node {
  readonly parent: Node | null;
  readonly key: string;
  readonly children: Map<string, Node>;
  /** The block's id in each layer group. */
  readonly ids: readonly number[];
}

export class Prefixes {
  private readonly root: Node = { parent: null, key: '', children: new Map(), ids: [] };
  /** From the least to the most recently used; a node comes after all that it leads to. */
  private readonly order = new Set<Node>();

  constructor(
    private readonly cache: KvCache,
    /** Token slots of a block: those of every group, which all have the same. */
    private readonly blockTokens: number,
    /** Blocks, in each group. */
    private readonly budget: number,
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
    let node = path.at(-1) ?? this.root;
    while (path.length < blocks) {
      node = this.add(node, this.keyOf(tokens, path.length), sequence, path.length);
      path.push(node);
    }
    this.touch(path);
    return blocks * this.blockTokens;
  }

  /** The blocks of the longest shared prefix of `tokens`, first to last. */
  find(tokens: ArrayLike<number>): readonly (readonly number[])[] {
    const blocks = Math.floor(requireTokens(tokens) / this.blockTokens);
    return this.walk(tokens, blocks).map(({ ids }) => ids);
  }

  /** The nodes of the first `blocks` blocks of tokens, as far as there are any. */
  private walk(tokens: ArrayLike<number>, blocks: number): Node[] {
    const path: Node[] = [];
    let node: Node | undefined = this.root;
    while (path.length < blocks) {
      node = node.children.get(this.keyOf(tokens, path.length));
      if (node === undefined) break;
      path.push(node);
    }
    this.touch(path);
    return path;
  }

  /** These were used now, the last of them first. */
  private touch(path: readonly Node[]): void {
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

  private add(parent: Node, key: string, sequence: KvSequence, ordinal: number): Node {
    if (this.order.size === this.budget) this.evict();
    const { groups } = this.cache;
    const ids = sequence.rings.map((ring) => ring.main.idOf(ordinal));
    ids.forEach((id, group) => groups[group].pool.hold(id));
    const node: Node = { parent, key, children: new Map(), ids };
    parent.children.set(key, node);
    this.order.add(node);
    return node;
  }

  /** Removes the node that was used longest ago: a leaf, and not one of a path just touched that is within the budget. */
  private evict(): void {
    const [oldest] = this.order;
    oldest.parent!.children.delete(oldest.key);
    this.order.delete(oldest);
    this.release(oldest);
  }

  private release({ ids }: Node): void {
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
function requireTokens(tokens: ArrayLike<number>): number {
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
