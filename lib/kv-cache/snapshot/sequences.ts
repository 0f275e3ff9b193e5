/** The methods of KvSequence and KvCache that save and restore. */
import { isUint8Array } from 'node:util/types';
import { expectedError } from '../../core/errors';
import { describe } from '../../core/validate';
import type { KvCache } from '../kv-cache';
import type { KvSequence } from '../sequence';
import { sourceOf, targetOf } from './cache-access';
import { planSnapshot, restoreBytes, writeAll } from './codec';
import { KnownDigests, loadSequence, saveSequence } from './saving';
import type { SaveResult } from './saving';
import type { BlockStore } from './store';
import { restoreSnapshotFrom, writeSnapshotTo } from './streams';

export function snapshotBytes(sequence: KvSequence): Uint8Array {
  sequence.checkUsable('sequence');
  return writeAll(planSnapshot(sourceOf(sequence)));
}

export function restoreSequence(cache: KvCache, bytes: unknown): KvSequence {
  cache.checkUsable();
  if (!isUint8Array(bytes)) {
    throw expectedError('INVALID_ARGUMENT', 'bytes', 'a Uint8Array', describe(bytes));
  }
  return restoreBytes(targetOf(cache), bytes);
}

/** The sequence is busy until the action has settled: what it holds does not change while it is read. */
async function held<T>(sequence: KvSequence, action: () => Promise<T>): Promise<T> {
  sequence.checkUsable('sequence');
  sequence.state++;
  try {
    return await action();
  } finally {
    sequence.state--;
  }
}

export async function snapshotSequenceTo(
  sequence: KvSequence,
  target: string | NodeJS.WritableStream,
): Promise<number> {
  return held(sequence, () => writeSnapshotTo(sourceOf(sequence), target));
}

export async function restoreSequenceFrom(
  cache: KvCache,
  source: string | NodeJS.ReadableStream,
): Promise<KvSequence> {
  cache.checkUsable();
  return restoreSnapshotFrom(targetOf(cache), source);
}

const digests = new WeakMap<KvSequence, KnownDigests>();

/** Those of the sequence, from now on told of every cut. */
function digestsOf(sequence: KvSequence, first = new KnownDigests()): KnownDigests {
  let known = digests.get(sequence);
  if (known === undefined) {
    known = first;
    digests.set(sequence, known);
    sequence.cutListeners.add((length) => known?.forget(length));
  }
  return known;
}

/** A fork has the blocks of its origin. */
export function inheritDigests(fork: KvSequence, origin: KvSequence): void {
  const known = digests.get(origin);
  if (known !== undefined) digestsOf(fork, known.copy());
}

export async function saveSequenceTo(
  sequence: KvSequence,
  store: BlockStore,
  name: string,
): Promise<SaveResult> {
  return held(sequence, () => saveSequence(sourceOf(sequence), digestsOf(sequence), store, name));
}

export async function loadSequenceFrom(
  cache: KvCache,
  store: BlockStore,
  name: string,
): Promise<KvSequence> {
  cache.checkUsable();
  const { sequence, known } = await loadSequence(targetOf(cache), store, name);
  digestsOf(sequence, known);
  return sequence;
}
