/** What forks, shared prefixes, steps and the newer options of a cache must refuse. */
import type { KvCache } from '../../lib';
import { Rope, Tensor, type KvCacheOptions, type KvSequence, type KvStep } from '../../lib';
import { cache } from './cache-rows';
import { zeros, type Row } from './rows';

const WINDOWED = { layers: 1, window: 6, capacity: 8 };

function filled(tokens: number, options: Partial<KvCacheOptions> = {}): KvSequence {
  const sequence = cache({ layers: 1, sequences: 2, ...options }).sequence();
  sequence.append(0, zeros(tokens, 2, 8), zeros(tokens, 2, 8));
  return sequence;
}

/** A sequence of two layers, one of which has begun a step. */
function uneven(): KvSequence {
  const sequence = cache({ sequences: 2 }).sequence();
  sequence.append(0, zeros(1, 2, 8), zeros(1, 2, 8));
  return sequence;
}

function stepOf(sequence: KvSequence, tokens = 1, tree?: number[]): KvStep {
  return sequence.cache.step([{ sequence, tokens, tree }]);
}

/** A step whose only layer has appended. */
function appended(tokens = 1, tree?: number[]): KvStep {
  const step = stepOf(filled(2), tokens, tree);
  step.append(0, zeros(tokens, 2, 8), zeros(tokens, 2, 8));
  return step;
}

export const OPTIONS: Row[] = [
  ['INVALID_DTYPE', 'options.dtype.v', 'values of no dtype', () => cache({ dtype: { k: 'q8' } })],
  ['INVALID_ARGUMENT', 'options.rotate', 'a rotation of 1', () => cache({ rotate: 1 })],
  [
    'INVALID_ARGUMENT',
    'options.rotate.k',
    'half a choice of rotations',
    () => cache({ rotate: { v: true } }),
  ],
  ['INVALID_ARGUMENT', 'options.recent', 'recent floats', () => cache({ recent: 8 })],
  ['OUT_OF_RANGE', 'options.recent', 'recent -1', () => cache({ dtype: 'q8', recent: -1 })],
  ['OUT_OF_RANGE', 'options.prefixTokens', 'a debt', () => cache({ prefixTokens: -1 })],
  ['OUT_OF_RANGE', 'options.budgetTokens', 'a budget of 0', () => cache({ budgetTokens: 0 })],
  ['INVALID_ARGUMENT', 'options.budgetTokens', 'half', () => cache({ budgetTokens: '8' })],
  ['INVALID_ARGUMENT', 'options.model', 'a model that is a number', () => cache({ model: 7 })],
  ['INVALID_ARGUMENT', 'options.positions', 'relative', () => cache({ positions: 'relative' })],
  ['INVALID_ARGUMENT', 'options.rope', 'no rope', () => cache({ positions: 'cache' })],
  [
    'INVALID_ARGUMENT',
    'options.rope',
    'a rope for nothing',
    () => cache({ rope: new Rope({ headDim: 8 }) }),
  ],
  [
    'INVALID_SHAPE',
    'options.rope',
    'a rope of another head dim',
    () => cache({ positions: 'cache', rope: new Rope({ headDim: 16 }) }),
  ],
  ['OUT_OF_RANGE', 'options.layers.length', 'no layers', () => cache({ layers: [] })],
  ['INVALID_ARGUMENT', 'options.layers[1]', 'a layer of 3', () => cache({ layers: [{}, 3] })],
  [
    'OUT_OF_RANGE',
    'options.layers[0].kvHeads',
    'a layer without heads',
    () => cache({ layers: [{ kvHeads: 0 }] }),
  ],
  [
    'OUT_OF_RANGE',
    'options.layers[0].capacity',
    'a layer that cannot hold its window',
    () => cache({ layers: [{ window: 9, capacity: 8 }] }),
  ],
];

/** A cache with two blocks of 16 tokens, one of which a sequence has taken. */
function budgeted(): { cache: KvCache; sequence: KvSequence } {
  const made = cache({ layers: 1, capacity: 16, sequences: 4, budgetTokens: 32 });
  const sequence = made.sequence();
  sequence.append(0, zeros(16, 2, 8), zeros(16, 2, 8));
  return { cache: made, sequence };
}

/** The ids of `budgeted`'s tokens, and their block. */
const IDS = new Array<number>(16).fill(1);

function exported(): Uint8Array {
  const { cache: made, sequence } = budgeted();
  sequence.share(IDS);
  return made.exportPrefix(IDS, 0, 1)[0];
}

function damagedBlock(): Uint8Array {
  const bytes = exported();
  bytes[bytes.length >> 1] ^= 1;
  return bytes;
}

const BUDGETS: Row[] = [
  [
    'CAPACITY_EXCEEDED',
    'entries',
    'a step without free blocks',
    () => {
      const { cache: made } = budgeted();
      const entries = [made.sequence(), made.sequence()].map((s) => ({ sequence: s, tokens: 1 }));
      made.step(entries);
    },
  ],
  [
    'CAPACITY_EXCEEDED',
    'k',
    'a step whose blocks others have taken since',
    () => {
      const { cache: made, sequence: first } = budgeted();
      const [second, other] = [made.sequence(), made.sequence()];
      const step = made.step([{ sequence: second, tokens: 1 }]);
      other.append(0, zeros(1, 2, 8), zeros(1, 2, 8));
      expectLengths([first, second, other], [16, 0, 1]);
      step.append(0, zeros(1, 2, 8), zeros(1, 2, 8));
    },
  ],
  [
    'CAPACITY_EXCEEDED',
    'k',
    'an append without a free block',
    () => {
      const { cache: made } = budgeted();
      for (let i = 0; i < 2; i++) made.sequence().append(0, zeros(1, 2, 8), zeros(1, 2, 8));
    },
  ],
  [
    'CAPACITY_EXCEEDED',
    'cache',
    'a snapshot without a free block',
    () => {
      const { cache: made, sequence } = budgeted();
      const bytes = sequence.snapshot();
      for (let i = 0; i < 2; i++) made.restore(bytes);
    },
  ],
  ['OUT_OF_RANGE', 'toBlock', 'what nobody shared', () => cache().exportPrefix(IDS, 0, 1)],
  ['OUT_OF_RANGE', 'fromBlock', 'block -1', () => cache().exportPrefix(IDS, -1, 0)],
  ['INVALID_ARGUMENT', 'tokens', 'a text', () => cache().sharedPrefix('text' as never)],
  ['INVALID_ARGUMENT', 'tokens', 'a text', () => cache().importPrefix('text' as never, 0, [])],
  [
    'INVALID_ARGUMENT',
    'blocks',
    'a block that is text',
    () => budgeted().cache.importPrefix(IDS, 0, ['text' as never]),
  ],
  [
    'OUT_OF_RANGE',
    'blocks',
    'more blocks than tokens',
    () => budgeted().cache.importPrefix(IDS, 1, [exported()]),
  ],
  [
    'INVALID_SNAPSHOT',
    'blocks[0]',
    'no block',
    () => budgeted().cache.importPrefix(IDS, 0, [new Uint8Array(200)]),
  ],
  [
    'INVALID_SNAPSHOT',
    'blocks[0]',
    'a damaged block',
    () => budgeted().cache.importPrefix(IDS, 0, [damagedBlock()]),
  ],
  [
    'SNAPSHOT_MISMATCH',
    'blocks[0]',
    'the block of other tokens',
    () =>
      budgeted().cache.importPrefix(
        IDS.map((id, i) => (i === 7 ? 2 : id)),
        0,
        [exported()],
      ),
  ],
  [
    'SNAPSHOT_MISMATCH',
    'blocks[0]',
    "another model's block",
    () => cache({ layers: 1, capacity: 16, model: 'other' }).importPrefix(IDS, 0, [exported()]),
  ],
];

function expectLengths(sequences: readonly KvSequence[], lengths: readonly number[]): void {
  expect(sequences.map(({ length }) => length)).toEqual(lengths);
}

export const SHARING: Row[] = [
  ...OPTIONS,
  ...BUDGETS,
  [
    'CAPACITY_EXCEEDED',
    'cache',
    'a fork too many',
    () => {
      const s = filled(1);
      s.fork();
      s.fork();
    },
  ],
  ['LAYERS_UNEVEN', 'sequence', 'a fork in the middle of a step', () => uneven().fork()],
  ['LAYERS_UNEVEN', 'sequence', 'sharing in the middle of a step', () => uneven().share([])],
  [
    'DISPOSED',
    'sequence',
    'appending to a disposed fork',
    () => {
      const fork = filled(1).fork();
      fork.dispose();
      fork.append(0, zeros(1, 2, 8), zeros(1, 2, 8));
    },
  ],
  ['OUT_OF_RANGE', 'tokens', 'more ids than tokens', () => filled(2).share([1, 2, 3])],
  ['INVALID_ARGUMENT', 'tokens', 'an id of 1.5', () => filled(2).share([1, 1.5])],
  ['INVALID_ARGUMENT', 'tokens', 'a text', () => cache().lookup('text' as never)],
  ['POSITION_EVICTED', 'sequence', 'sharing what is gone', () => filled(20, WINDOWED).share([1])],
  [
    'SLACK_EXCEEDED',
    'length',
    'a fork rolled back beyond the slack',
    () =>
      filled(20, { ...WINDOWED, sequences: 2 })
        .fork()
        .truncate(17),
  ],
  [
    'NON_FINITE',
    'k',
    'a NaN into a rotated q4 cache',
    () => {
      const k = Tensor.from(new Array<number>(16).fill(NaN), [1, 2, 8]);
      cache({ dtype: 'q4' })
        .sequence()
        .append(0, k, zeros(1, 2, 8));
    },
  ],
  [
    'NON_FINITE',
    'v',
    'what a rotation would bring beyond f16',
    () => {
      const v = Tensor.from(new Array<number>(16).fill(60000), [1, 2, 8]);
      cache({ dtype: 'q4' })
        .sequence()
        .append(0, zeros(1, 2, 8), v);
    },
  ],
  ['INVALID_ARGUMENT', 'entries', 'a step of nothing', () => cache().step([])],
  [
    'INVALID_ARGUMENT',
    'entries[0].sequence',
    "another cache's sequence",
    () => cache().step([{ sequence: filled(1), tokens: 1 }]),
  ],
  [
    'INVALID_ARGUMENT',
    'entries[1].sequence',
    'a sequence twice',
    () => {
      const sequence = filled(1);
      sequence.cache.step([
        { sequence, tokens: 1 },
        { sequence, tokens: 1 },
      ]);
    },
  ],
  ['OUT_OF_RANGE', 'entries[0].tokens', 'a step of no tokens', () => stepOf(filled(1), 0)],
  ['CAPACITY_EXCEEDED', 'entries[0].tokens', 'a step beyond the end', () => stepOf(filled(7), 2)],
  [
    'OUT_OF_RANGE',
    'entries[0].tokens',
    'a step that evicts what it sees',
    () => stepOf(filled(20, WINDOWED), 4),
  ],
  [
    'INVALID_ARGUMENT',
    'options.cascade',
    'half a cascade',
    () => {
      const sequence = filled(1);
      sequence.cache.step([{ sequence, tokens: 1 }], { cascade: 0.5 as never });
    },
  ],
  [
    'INVALID_ARGUMENT',
    'entries[0].tree',
    'a tree that grows down',
    () => stepOf(filled(1), 2, [1, -1]),
  ],
  ['LAYERS_UNEVEN', 'sequence', 'a step within a step', () => stepOf(uneven())],
  [
    'INVALID_SHAPE',
    'k',
    'rows of fewer tokens',
    () => stepOf(filled(1), 2).append(0, zeros(1, 2, 8), zeros(1, 2, 8)),
  ],
  [
    'OUT_OF_RANGE',
    'layer',
    'a layer that is not there',
    () => appended().attend(1, zeros(1, 2, 8)),
  ],
  [
    'LAYERS_UNEVEN',
    'layer',
    'attention before the append',
    () => stepOf(filled(1)).attend(0, zeros(1, 2, 8)),
  ],
  [
    'LAYERS_UNEVEN',
    'layer',
    'a sequence that was cut since',
    () => {
      const sequence = filled(3);
      const step = stepOf(sequence);
      sequence.truncate(2);
      step.append(0, zeros(1, 2, 8), zeros(1, 2, 8));
    },
  ],
  [
    'LAYERS_UNEVEN',
    'layer',
    'a sequence that has gone on since',
    () => {
      const sequence = filled(3);
      const step = stepOf(sequence);
      sequence.append(0, zeros(1, 2, 8), zeros(1, 2, 8));
      step.append(0, zeros(1, 2, 8), zeros(1, 2, 8));
    },
  ],
  [
    'LAYERS_UNEVEN',
    'layer',
    'a step taken twice',
    () => appended().append(0, zeros(1, 2, 8), zeros(1, 2, 8)),
  ],
  ['INVALID_SHAPE', 'q', 'queries of two rows', () => appended().attend(0, zeros(2, 2, 8))],
  ['HEADS_NOT_DIVISIBLE', 'q', '3 query heads', () => appended().attend(0, zeros(1, 3, 8))],
  [
    'INVALID_SHAPE',
    'out',
    'an output of another shape',
    () => appended().attend(0, zeros(1, 2, 8), zeros(1, 2, 9)),
  ],
  [
    'OVERLAP',
    'out',
    'an output in the queries',
    () => {
      const q = zeros(1, 2, 8);
      appended().attend(0, q, q);
    },
  ],
  [
    'INVALID_SHAPE',
    'options.lse',
    'an LSE of one head',
    () => appended().attend(0, zeros(1, 2, 8), undefined, { lse: zeros(1, 1) }),
  ],
  ['INVALID_ARGUMENT', 'path', 'a path without a tree', () => appended().keep(0, [0])],
  ['INVALID_ARGUMENT', 'path', 'a path that skips', () => appended(3, [-1, 0, 1]).keep(0, [0, 2])],
  ['OUT_OF_RANGE', 'entry', 'an entry that is not there', () => appended(1, [-1]).keep(1, [])],
];

/** Handles that are refused while busy, or of which nothing is left. */
export const CACHE_USES: [string, (s: KvSequence) => unknown][] = [
  ['fork', (s) => s.fork()],
  ['share', (s) => s.share([])],
  ['truncate', (s) => s.truncate(0)],
  ['cache.lookup', (s) => s.cache.lookup([])],
  ['cache.sharedPrefix', (s) => s.cache.sharedPrefix([])],
  ['cache.exportPrefix', (s) => s.cache.exportPrefix([], 0, 0)],
  ['cache.importPrefix', (s) => s.cache.importPrefix([], 0, [])],
  ['cache.fits', (s) => s.cache.fits([{ sequence: s, tokens: 1 }])],
  ['cache.step', (s) => s.cache.step([{ sequence: s, tokens: 1 }])],
];

export function smallCache(): KvCache {
  return cache({ layers: 1, sequences: 2 });
}
