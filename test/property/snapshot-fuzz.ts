/**
 * Mutated snapshots: each is refused by a GqaError, or restores to a sequence that can be used; the cache goes on as if
 * nothing had been. Checksums are made sound again in half of them, so that what lies behind is reached.
 *
 *   node dist/test/property/snapshot-fuzz.js [COUNT] [SEED]     (npm run fuzz:snapshots: a million)
 */
import { GqaError } from '../../lib';
import type { KvCache, KvSequence } from '../../lib';
import { appendRandom, attended, filled, KINDS } from '../support/caches';
import { Random } from '../support/random';
import { bodyAt, headerOf, reseal, withHeader } from '../support/snapshots';

/** A cache with a sequence that looks on, and snapshots of it at several lengths. */
interface Subject {
  kind: string;
  cache: KvCache;
  bystander: KvSequence;
  bits: string;
  used: number;
  snapshots: Buffer[];
}

function makeSubject(kind: string): Subject {
  const { cache, sequence } = filled(kind, 0);
  const random = new Random(2);
  const { window } = KINDS[kind]();
  const lengths = [0, 5, 70, ...(window === undefined ? [] : [260])];
  const snapshots = lengths.map((length) => {
    while (sequence.length < length) {
      appendRandom(sequence, random, Math.min(31, length - sequence.length));
    }
    return Buffer.from(sequence.snapshot());
  });
  const bits = attended(sequence);
  return { kind, cache, bystander: sequence, bits, used: cache.usedBytes, snapshots };
}

const HOSTILE_NUMBERS = [
  '0',
  '-1',
  '1',
  '2',
  '63',
  '64',
  '65',
  '255',
  '65536',
  '4294967295',
  '4294967296',
  '2147483648',
  '9007199254740991',
  '9007199254740992',
  '1e308',
  '1e400',
  '-0',
  '0.5',
  'null',
  'true',
  '"x"',
  '[]',
  '{}',
  '',
];
const HOSTILE_BYTES = [0, 1, 0x22, 0x2c, 0x30, 0x39, 0x5b, 0x7b, 0x7d, 0x7f, 0x80, 0xff];

type Mutation = (bytes: Buffer, random: Random, other: Buffer) => Buffer;

/** Anywhere, or within the head, where the lengths are. */
function place(bytes: Buffer, random: Random): number {
  const head = Math.min(bytes.length, 1200);
  return random.int(0, (random.chance(0.5) ? head : bytes.length) - 1);
}

const MUTATIONS: Mutation[] = [
  function flipBits(bytes, random) {
    for (let n = random.int(1, 4); n > 0; n--) bytes[place(bytes, random)] ^= 1 << random.int(0, 7);
    return bytes;
  },
  function overwrite(bytes, random) {
    const at = place(bytes, random);
    for (let i = random.int(1, 8); i > 0 && at + i <= bytes.length; i--) {
      bytes[at + i - 1] = random.pick(HOSTILE_BYTES);
    }
    return bytes;
  },
  function cutOff(bytes, random) {
    return bytes.subarray(0, random.int(0, bytes.length - 1));
  },
  function cutOut(bytes, random) {
    const at = place(bytes, random);
    return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + random.int(1, 100))]);
  },
  function putIn(bytes, random, other) {
    const at = place(bytes, random);
    const from = place(other, random);
    const piece = other.subarray(from, from + random.int(1, 100));
    return Buffer.concat([bytes.subarray(0, at), piece, bytes.subarray(at)]);
  },
  function splice(bytes, random, other) {
    const at = place(bytes, random);
    return Buffer.concat([bytes.subarray(0, at), other.subarray(at)]);
  },
  function headerLength(bytes, random) {
    const { length } = headerOf(bytes);
    const lengths = [
      0,
      1,
      Math.max(0, length - 1),
      length + 1,
      bytes.length,
      2 ** 26,
      2 ** 26 + 1,
      2 ** 31,
      2 ** 32 - 1,
    ];
    bytes.writeUInt32LE(random.pick(lengths), 12);
    return bytes;
  },
  headerNumber,
  anotherHeader,
  function payload(bytes, random) {
    const from = Math.min(bodyAt(bytes), bytes.length - 1);
    for (let n = random.int(1, 50); n > 0; n--) {
      const to = random.pick([0xff, 0x7c, 0x7f, random.int(0, 255)]);
      bytes[random.int(from, bytes.length - 1)] = to;
    }
    return bytes;
  },
];

/** One value in the header is another, the checksums sound. */
function headerNumber(bytes: Buffer, random: Random): Buffer {
  const header = headerOf(bytes);
  const values = [...header.matchAll(/-?\d[\d.]*|null|true|false|"q\d"|"f\d\d"/g)];
  if (values.length === 0) return bytes;
  const { 0: text, index } = random.pick(values);
  const near = String(Number(text) + random.int(-2, 2));
  const to = random.chance(0.5) ? near : random.pick(HOSTILE_NUMBERS);
  return withHeader(bytes, header.slice(0, index) + to + header.slice(index + text.length));
}

function anotherHeader(bytes: Buffer, _random: Random, other: Buffer): Buffer {
  return withHeader(bytes, headerOf(other));
}

/** Mutations that leave the checksums sound. */
const SEALING = new Set<Mutation>([headerNumber, anotherHeader]);

/** What became of the mutated snapshots. */
export interface Tally {
  restored: number;
  invalid: number;
  mismatched: number;
}

/** @throws Error where something else than a refusal comes, or the cache is not as it was. */
export function fuzzSnapshots(count: number, seed: number): Tally {
  const random = new Random(seed);
  const subjects = Object.keys(KINDS).map(makeSubject);
  const tally: Tally = { restored: 0, invalid: 0, mismatched: 0 };
  for (let i = 0; i < count; i++) {
    const subject = random.pick(subjects);
    const original = random.pick(subject.snapshots);
    // Now and then one of another cache.
    const other = random.pick((random.chance(0.8) ? subject : random.pick(subjects)).snapshots);
    let bytes: Buffer = Buffer.from(original);
    let sound = random.chance(0.5);
    for (let n = random.chance(0.8) ? 1 : 2; n > 0 && bytes.length > 100; n--) {
      const mutation = random.pick(MUTATIONS);
      bytes = Buffer.from(mutation(bytes, random, other));
      sound ||= SEALING.has(mutation);
    }
    if (sound) reseal(bytes);
    try {
      tally[attempt(subject, bytes, [original, other], sound)]++;
      if (i % 64 === 0) checkBystander(subject);
    } catch (cause) {
      throw new Error(`mutation ${i} of seed ${seed}, ${subject.kind}: ${String(cause)}`, {
        cause,
      });
    }
  }
  subjects.forEach(checkBystander);
  return tally;
}

function attempt(subject: Subject, bytes: Buffer, known: Buffer[], resealed: boolean): keyof Tally {
  const { cache, used } = subject;
  let restored: KvSequence;
  try {
    restored = cache.restore(bytes);
  } catch (error) {
    if (!(error instanceof GqaError)) throw error;
    if (cache.usedBytes !== used) throw new Error('blocks were lost', { cause: error });
    if (error.code === 'INVALID_SNAPSHOT') return 'invalid';
    if (error.code === 'SNAPSHOT_MISMATCH') return 'mismatched';
    throw error;
  }
  use(restored);
  if (cache.usedBytes !== used) throw new Error('blocks were lost');
  if (!resealed && !known.some((snapshot) => snapshot.equals(bytes))) {
    throw new Error('bytes that no sequence ever was were restored');
  }
  return 'restored';
}

/** Whatever numbers it has, it can be used like any other sequence. */
function use(sequence: KvSequence): void {
  if (sequence.length > 0) attended(sequence);
  if (sequence.room > 3) appendRandom(sequence, new Random(1), 3);
  sequence.truncate(Math.max(0, sequence.length - 4));
  sequence.snapshot();
  sequence.dispose();
}

function checkBystander({ kind, bystander, bits }: Subject): void {
  if (attended(bystander) !== bits) throw new Error(`${kind}: another sequence has changed`);
}

if (require.main === module) {
  const [count = '1000000', seed = String(Date.now() % 1e6)] = process.argv.slice(2);
  console.log(`${count} mutated snapshots, seed ${seed}`);
  const begin = performance.now();
  const { restored, invalid, mismatched } = fuzzSnapshots(Number(count), Number(seed));
  const seconds = ((performance.now() - begin) / 1000).toFixed(0);
  console.log(
    `${invalid} invalid, ${mismatched} of another cache, ${restored} restored, nothing else; ${seconds} s`,
  );
}
