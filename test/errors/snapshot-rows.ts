/** Snapshots and stores that must be refused. */
import { tmpdir } from 'node:os';
import { Readable, Writable } from 'node:stream';
import { FileBlockStore, RedisBlockStore, type BlockStore, type KvSequence } from '../../lib';
import { cache } from './cache-rows';
import { zeros, type Row } from './rows';

function sequence(): KvSequence {
  const s = cache({ layers: 1, sequences: 2 }).sequence();
  s.append(0, zeros(3, 2, 8), zeros(3, 2, 8));
  return s;
}

/** A snapshot with one bit flipped. */
function damaged(): Uint8Array {
  const bytes = sequence().snapshot();
  bytes[bytes.length >> 1] ^= 1;
  return bytes;
}

const broken = () => Promise.reject(new Error('the store is down'));
const BROKEN: BlockStore = { get: broken, put: broken, has: broken, delete: broken };
const EMPTY: BlockStore = {
  get: () => Promise.resolve(null),
  put: () => Promise.resolve(),
  has: () => Promise.resolve(false),
  delete: () => Promise.resolve(),
};

export const SNAPSHOTS: Row[] = [
  ['INVALID_SNAPSHOT', 'snapshot', 'no bytes', () => cache().restore(new Uint8Array(0))],
  ['INVALID_SNAPSHOT', 'snapshot', 'a flipped bit', () => sequence().cache.restore(damaged())],
  [
    'INVALID_SNAPSHOT',
    'snapshot',
    'a stream that ends early',
    () => sequence().cache.restoreFrom(Readable.from([sequence().snapshot().subarray(0, 900)])),
  ],
  [
    'SNAPSHOT_MISMATCH',
    'snapshot.layers.length',
    'more layers',
    () => cache({ layers: 2 }).restore(sequence().snapshot()),
  ],
  [
    'SNAPSHOT_MISMATCH',
    'snapshot.model',
    'another model',
    () => cache({ layers: 1, model: 'other' }).restore(sequence().snapshot()),
  ],
  ['STORE_FAILED', 'store', 'a store that is down', () => sequence().saveTo(BROKEN, 'name')],
  ['STORE_FAILED', 'store', 'the same, loading', () => cache().loadFrom(BROKEN, 'name')],
  ['STORE_FAILED', 'source', 'a file that is not there', () => cache().restoreFrom('/no/file')],
  ['STORE_FAILED', 'target', 'a folder for a file', () => sequence().snapshotTo(tmpdir())],
  [
    'STORE_FAILED',
    'target',
    'a stream that fails',
    () => sequence().snapshotTo(new Writable({ write: (_c, _e, done) => done(new Error('full')) })),
  ],
  ['INVALID_ARGUMENT', 'bytes', 'no Uint8Array', () => cache().restore('bytes' as never)],
  ['INVALID_ARGUMENT', 'source', 'neither path nor stream', () => cache().restoreFrom(7 as never)],
  ['INVALID_ARGUMENT', 'target', 'nowhere', () => sequence().snapshotTo(undefined as never)],
  ['INVALID_ARGUMENT', 'store', 'no store', () => sequence().saveTo({} as never, 'name')],
  ['INVALID_ARGUMENT', 'name', 'no name', () => sequence().saveTo(EMPTY, '')],
  ['INVALID_ARGUMENT', 'name', 'a name of nobody', () => cache().loadFrom(EMPTY, 'nobody')],
  ['INVALID_ARGUMENT', 'folder', 'no folder', () => new FileBlockStore('')],
  ['INVALID_ARGUMENT', 'client', 'no client', () => new RedisBlockStore({} as never)],
  [
    'LAYERS_UNEVEN',
    'sequence',
    'a snapshot in the middle of a step',
    () => {
      const s = cache({ layers: 2 }).sequence();
      s.append(0, zeros(1, 2, 8), zeros(1, 2, 8));
      s.snapshot();
    },
  ],
  [
    'CAPACITY_EXCEEDED',
    'cache',
    'a snapshot for which no sequence is free',
    () => {
      const s = sequence();
      s.fork();
      s.cache.restore(s.snapshot());
    },
  ],
];
