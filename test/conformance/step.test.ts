/** Several sequences attended in one call: ragged batches, trees, shared keys read once, and plans that are wrong. */
import { GqaError } from '../../lib';
import { getBackend } from '../../lib/backend';
import { EntrySlot, ShareSlot } from '../../lib/backend/contract-cache';
import type { AttendStepArgs, StepPlan } from '../../lib/backend/contract-cache';
import { expectSameBits } from '../support/compare';
import {
  PagedStore,
  rowFeatures,
  someSlopes,
  treeOf,
  type PagedSequence,
  type PagedShape,
  type RowFeatures,
} from '../support/paged-sequences';
import {
  callAlone,
  checkStep,
  prepareStep,
  type StepCase,
  type StepSequence,
  type StepShare,
} from '../support/paged-steps';
import { Random } from '../support/random';
import { axis, samples } from '../support/samples';

const DTYPES = ['f32', 'f16', 'bf16'] as const;
const BASE = { kvHeads: 2, headDim: 12, valueDim: 18, blockTokens: 16 };

function randomFeatures(random: Random, heads: number, windowed: boolean): RowFeatures {
  return rowFeatures({
    window: windowed ? random.pick([Infinity, random.int(1, 300)]) : Infinity,
    sinkTokens: random.pick([0, random.int(0, 40)]),
    softcap: random.pick([0, 5]),
    alibiSlopes: random.chance(0.4) ? someSlopes(heads) : null,
    sinkLogits: random.chance(0.3) ? Float32Array.from(random.normals(heads)) : null,
  });
}

/** Parents of a random tree: each token follows an earlier one, or is a root. */
function randomTree(random: Random, tokens: number): number[] {
  return Array.from({ length: tokens }, (_, i) => random.int(-1, i - 1));
}

describe.each(DTYPES)('%s', (dtype) => {
  test('ragged batches of chains and trees; chains have the bits of calls of their own', () => {
    for (let seed = 0; seed < samples(10); seed++) {
      const random = new Random(seed);
      const tailDtype = random.chance(0.5) ? random.pick(DTYPES) : undefined;
      const shape: PagedShape = { ...BASE, dtype, tailDtype, headDim: random.int(1, 40) };
      const store = new PagedStore(shape, random, 200);
      const group = random.int(1, 5);
      const features = randomFeatures(random, shape.kvHeads * group, true);
      const { window, sinkTokens } = features;
      const entries = Array.from({ length: random.int(1, 7) }, (): StepSequence => {
        const tokens = random.pick([1, 1, 1, 2, 9, 40]);
        const keyTokens = tokens + random.pick([0, random.int(0, 40), random.int(0, 500)]);
        const ordinals = Math.ceil(keyTokens / shape.blockTokens);
        const range = { sinkOrdinals: random.int(0, 2), firstOrdinal: random.int(0, ordinals) };
        const seen = (j: number) => j > keyTokens - tokens - window || j < sinkTokens;
        const tail = tailDtype === undefined ? null : range;
        const sequence = store.sequence(keyTokens, tail, null, seen);
        // A tree's tokens are sinks or not by their depth, the keys of sinks by their place: the same before the tree.
        const sinks = sinkTokens - (keyTokens - tokens);
        if (sinks > 0 || random.chance(0.6)) return { sequence, tokens };
        return { sequence, tokens, tree: treeOf(randomTree(random, tokens), window) };
      });
      const sinkQ = features.sinkLogits === null && random.chance(0.5);
      const precision = random.pick(['exact', 'fast'] as const);
      const c: StepCase = { dtype: random.pick(DTYPES), group, sinkQ, precision, features };
      const step = prepareStep(c, store, entries);
      const what = JSON.stringify({ seed, ...c, shape });
      checkStep(what, c, store, entries, step);
      let row = 0;
      entries.forEach(({ tokens, tree }, i) => {
        const from = row;
        row += tokens;
        if (tree !== undefined) return;
        const alone = callAlone(step, store, entries, i);
        getBackend().attend(alone);
        const { args } = step;
        const width = args.heads * args.valueDim;
        const out = args.out.slice(from * width, row * width);
        const lse = args.lse!.slice(from * args.heads, row * args.heads);
        expectSameBits(`entry ${i} alone, ${what}`, out, alone.out);
        expectSameBits(`lse of entry ${i} alone, ${what}`, lse, alone.lse!);
      });
      store.dispose();
    }
  });

  test('a tree that is a chain is a chain', () => {
    const store = new PagedStore({ ...BASE, dtype }, new Random(4));
    const features = rowFeatures({ window: 30, alibiSlopes: someSlopes(4) });
    const sequence = store.sequence(100);
    const tokens = 20;
    const tree = treeOf(
      Array.from({ length: tokens }, (_, i) => i - 1),
      30,
    );
    const c: StepCase = { dtype, group: 2, sinkQ: false, precision: 'exact', features };
    for (const entry of [
      { sequence, tokens },
      { sequence, tokens, tree },
    ]) {
      checkStep('chain', c, store, [entry], prepareStep(c, store, [entry]));
    }
    store.dispose();
  });

  test.each(axis([1, 2, 3, 8, 17, 34]))('a prefix of %i blocks, read once', (blocks) => {
    const { blockTokens } = BASE;
    for (const group of blocks % 2 === 0 ? [1, 4] : [3, 7]) {
      const random = new Random(blocks * 10 + group);
      const store = new PagedStore({ ...BASE, dtype }, random, 120);
      const shared = blocks * blockTokens;
      const counts = [1, 1, 3, 1, 20];
      const first = store.sequence(shared + 5);
      const entries = counts.map((tokens, i): StepSequence => {
        const keyTokens = shared + tokens + random.int(0, 50);
        const prefix = { of: first, tokens: shared };
        const sequence = store.sequence(keyTokens, null, prefix);
        const tree = i === 2 ? treeOf([-1, 0, 0], Infinity) : undefined;
        return { sequence, tokens, tree };
      });
      const features = randomFeatures(random, BASE.kvHeads * group, false);
      const c: StepCase = { dtype, group, sinkQ: false, precision: 'exact', features };
      // In any order, and not all of them.
      const members = random.shuffle([0, 1, 2, 3, 4]).slice(0, random.int(1, 5));
      const share = { firstKey: 0, lastKey: shared, members };
      const step = prepareStep(c, store, entries, [share]);
      checkStep(JSON.stringify({ blocks, group, members, c }), c, store, entries, step);
      store.dispose();
    }
  });

  test('nested shares, tails, sinks and their queries', () => {
    for (let seed = 0; seed < samples(8); seed++) {
      const { store, c, entries, shares } = nestedCase(new Random(seed), dtype);
      const step = prepareStep(c, store, entries, shares);
      checkStep(JSON.stringify({ seed, ...c, shares }), c, store, entries, step);
      store.dispose();
    }
  });

  test('a run of sinks shared under a window that has moved on', () => {
    const random = new Random(11);
    const store = new PagedStore({ ...BASE, dtype }, random, 120);
    const features = rowFeatures({ window: 20, sinkTokens: 32, alibiSlopes: someSlopes(4) });
    const first = store.sequence(40);
    const entries = [100, 333, 64].map((keyTokens): StepSequence => ({
      sequence: store.sequence(keyTokens, null, { of: first, tokens: 32 }),
      tokens: 2,
    }));
    const c: StepCase = { dtype, group: 2, sinkQ: true, precision: 'exact', features };
    const shares = [{ firstKey: 0, lastKey: 32, members: [0, 1, 2] }];
    const step = prepareStep(c, store, entries, shares);
    checkStep('sinks', c, store, entries, step);
    const wide = { ...shares[0], members: [2] };
    // Keys that the window hides cannot be shared.
    const hidden = { firstKey: 32, lastKey: 48, members: [2] };
    if (getBackend().info.kind === 'native') {
      const bad = prepareStep(c, store, entries, [wide, hidden]);
      expect(() => getBackend().attendStep(bad.args)).toThrow(refusal);
    }
    store.dispose();
  });
});

interface NestedCase {
  store: PagedStore;
  c: StepCase;
  entries: StepSequence[];
  shares: StepShare[];
}

/** All share a first run, some of them a second, some of these a third; some have no share at all. */
function nestedCase(random: Random, dtype: (typeof DTYPES)[number]): NestedCase {
  const tailDtype = random.chance(0.5) ? random.pick(DTYPES) : undefined;
  const shape: PagedShape = { ...BASE, dtype, tailDtype, blockTokens: random.pick([16, 32]) };
  const store = new PagedStore(shape, random, 250);
  const ends = [random.int(1, 9), random.int(10, 12), random.int(13, 20)];
  const tailOf = () =>
    tailDtype === undefined
      ? null
      : { sinkOrdinals: ends[0] % 3, firstOrdinal: random.int(20, 40) };
  const roots: PagedSequence[] = [store.sequence(21 * shape.blockTokens, tailOf())];
  const memberships: number[][] = [[], [], []];
  const entries = Array.from({ length: random.int(2, 9) }, (_, i): StepSequence => {
    const depth = random.int(0, 3);
    for (let level = 0; level < depth; level++) memberships[level].push(i);
    const tokens = random.pick([1, 1, 1, 4, 33]);
    const prefixTokens = depth === 0 ? 0 : ends[depth - 1] * shape.blockTokens;
    const prefix = depth === 0 ? null : { of: roots[0], tokens: prefixTokens };
    const keyTokens = prefixTokens + tokens + random.int(0, 60);
    return { sequence: store.sequence(keyTokens, tailOf(), prefix), tokens };
  });
  const shares = memberships
    .map((members, level) => ({
      firstKey: level === 0 ? 0 : ends[level - 1] * shape.blockTokens,
      lastKey: ends[level] * shape.blockTokens,
      members,
    }))
    .filter(({ members }) => members.length > 0);
  const group = random.int(1, 4);
  const features = randomFeatures(random, shape.kvHeads * group, false);
  const sinkQ = features.sinkLogits === null && random.chance(0.5);
  const precision = random.pick(['exact', 'fast'] as const);
  const c: StepCase = { dtype: random.pick(DTYPES), group, sinkQ, precision, features };
  return { store, c, entries, shares };
}

test('the same bits for any number of threads, shares and trees included', () => {
  const backend = getBackend();
  const { threads } = backend.info;
  for (let seed = 100; seed < 100 + samples(10); seed++) {
    const { store, c, entries, shares } = nestedCase(new Random(seed), 'f32');
    const { args } = prepareStep(c, store, entries, shares);
    backend.attendStep(args);
    try {
      for (let n = 1; n <= threads; n++) {
        backend.limitThreads(n);
        const again = { ...args, out: args.out.slice().fill(1), lse: args.lse!.slice().fill(1) };
        backend.attendStep(again);
        expectSameBits(`${n} threads`, again.out, args.out);
        expectSameBits(`lse, ${n} threads`, again.lse, args.lse!);
      }
    } finally {
      backend.limitThreads(threads);
    }
    store.dispose();
  }
});

test('hundreds of sequences', () => {
  const random = new Random(3);
  const store = new PagedStore({ ...BASE, kvHeads: 1, dtype: 'bf16' }, random, 1000);
  const first = store.sequence(64);
  const entries = Array.from({ length: 300 }, (): StepSequence => {
    const keyTokens = random.int(65, 100);
    return { sequence: store.sequence(keyTokens, null, { of: first, tokens: 64 }), tokens: 1 };
  });
  const members = entries.map((_, i) => i);
  const features = rowFeatures();
  const c: StepCase = { dtype: 'bf16', group: 3, sinkQ: false, precision: 'exact', features };
  for (const shares of [[], [{ firstKey: 0, lastKey: 64, members }]]) {
    checkStep('hundreds', c, store, entries, prepareStep(c, store, entries, shares));
  }
  store.dispose();
});

const refusal = expect.objectContaining({
  code: expect.stringMatching('^(INTERNAL|BUFFER_TOO_SMALL)$') as string,
}) as Error;

describe('plans that are wrong', () => {
  // JavaScript's arrays have bounds of their own; in C++ they are checked.
  const native = getBackend().info.kind === 'native';

  function goodStep(seed: number) {
    const { store, c, entries, shares } = nestedCase(new Random(seed), 'f32');
    const tree = treeOf(randomTree(store.random, entries[0].tokens), Infinity);
    entries[0] = { ...entries[0], tree };
    return { store, args: prepareStep(c, store, entries, shares).args };
  }

  function changed(args: AttendStepArgs, change: (plan: StepPlan) => Partial<StepPlan>) {
    const { plan } = args;
    const copy = { ...plan };
    copy.entries = plan.entries.slice();
    copy.shares = plan.shares.slice();
    copy.ids = plan.ids.slice();
    copy.trees = plan.trees.slice();
    copy.members = plan.members.slice();
    return { ...args, plan: { ...copy, ...change(copy) } };
  }

  test.each<[string, (plan: StepPlan) => Partial<StepPlan>]>([
    ['more entries than there are', (p) => ({ count: p.count + 1 })],
    ['more shares than there are', (p) => ({ shareCount: p.shareCount + 1 })],
    ['an entry beyond q', (p) => set(p, p.entries, EntrySlot.firstToken, 1e6)],
    ['more tokens than keys', (p) => set(p, p.entries, EntrySlot.keyTokens, 0)],
    ['keys without blocks', (p) => set(p, p.entries, EntrySlot.keyTokens, 1e6)],
    ['ids beyond the list', (p) => set(p, p.entries, EntrySlot.ids, p.ids.length)],
    ['a negative index of ids', (p) => set(p, p.entries, EntrySlot.ids, -1)],
    ['no number', (p) => set(p, p.entries, EntrySlot.tokens, NaN)],
    ['a tree beyond the list', (p) => set(p, p.entries, EntrySlot.tree, p.trees.length)],
    ['a tree of wrong depths', (p) => set(p, p.trees, 0, 40)],
    ['a negative depth', (p) => set(p, p.trees, 0, -1)],
    ['a ring without slots', () => ({ ringBlocks: 0 })],
    ['a longer ring', () => ({ ringBlocks: 1e9 })],
    ['an id beyond the arena', (p) => ({ ids: p.ids.fill(250) })],
    ['a share of no keys', (p) => set(p, p.shares, ShareSlot.lastKey, 0)],
    ['a share of parts of blocks', (p) => set(p, p.shares, ShareSlot.lastKey, 17)],
    ['a share that begins late', (p) => set(p, p.shares, ShareSlot.firstKey, 16)],
    ['a share that holds the rows themselves', (p) => set(p, p.shares, ShareSlot.lastKey, 16000)],
    ['members beyond the list', (p) => set(p, p.shares, ShareSlot.member, 100)],
    ['more members than there are', (p) => set(p, p.shares, ShareSlot.members, 100)],
    ['no members', (p) => set(p, p.shares, ShareSlot.members, 0)],
    ['a member that is no entry', (p) => set(p, p.members, 0, p.count)],
    ['a negative member', (p) => set(p, p.members, 0, -1)],
    [
      'a member twice',
      (p) => ({
        members: Int32Array.of(p.members[0], p.members[0]),
        ...set(p, p.shares, ShareSlot.members, 2),
      }),
    ],
    [
      'a share twice',
      (p) => ({
        shares: new Float64Array([...p.shares, ...p.shares]),
        shareCount: 2 * p.shareCount,
      }),
    ],
  ])('%s', (_, change) => {
    if (!native) return;
    const { store, args } = goodStep(5);
    expect(() => getBackend().attendStep(changed(args, change))).toThrow(refusal);
    getBackend().attendStep(args);
    store.dispose();
  });

  test('any change of any number is refused or gives a result', () => {
    if (!native) return;
    const numbers = [0, 1, 2, 15, 16, 17, 64, 1000, -1, -2, 0.5, 2 ** 31, 2 ** 53, -Infinity, NaN];
    let refused = 0;
    let done = 0;
    for (let seed = 0; seed < 8; seed++) {
      const { store, args } = goodStep(seed);
      for (let i = 0; i < samples(400); i++) {
        const { random } = store;
        const bad = changed(args, (plan) => {
          for (let n = random.int(1, 3); n > 0; n--) {
            const list = random.pick([
              plan.entries,
              plan.shares,
              plan.members,
              plan.trees,
              plan.ids,
            ]);
            if (list.length > 0) list[random.int(0, list.length - 1)] = random.pick(numbers);
          }
          if (random.chance(0.8)) return {};
          const name = random.pick([
            'count',
            'shareCount',
            'ringBlocks',
            'sinkBlocks',
            'tailRingBlocks',
            'tailSinkBlocks',
          ] as const);
          return { [name]: random.pick(numbers) };
        });
        try {
          getBackend().attendStep(bad);
          done++;
        } catch (error) {
          expect(error).toBeInstanceOf(GqaError);
          expect(error).toEqual(refusal);
          refused++;
        }
      }
      store.dispose();
    }
    expect(Math.min(refused, done)).toBeGreaterThan(0);
  });
});

function set(
  _: StepPlan,
  list: Float64Array | Int32Array,
  at: number,
  value: number,
): Partial<StepPlan> {
  list[at] = value;
  return {};
}
