/** Sequences that are nothing but bytes, to test the format of snapshots apart from any cache. */
import type { HeldBlock } from '../../lib/kv-cache/image';
import type {
  CacheFingerprint,
  HeldRing,
  SnapshotImage,
  SnapshotSource,
  SnapshotTarget,
} from '../../lib/kv-cache/snapshot/contents';
import { snapshotMismatch } from '../../lib/kv-cache/snapshot/contents';
import { Random } from './random';

const GROUP = { blockTokens: 16, window: null, sinkTokens: 0, recent: null };
const LAYER = {
  group: 0,
  kvHeads: 1,
  headDim: 2,
  valueDim: 2,
  keyDtype: 'q8',
  valueDtype: 'f16',
  rotateKeys: true,
  rotateValues: false,
  rope: 0,
} as const;
export const FINGERPRINT: CacheFingerprint = {
  model: 'a model',
  ropes: [[1, 0.5]],
  groups: [GROUP, { ...GROUP, window: 20, sinkTokens: 3, recent: 8 }],
  layers: [LAYER, { ...LAYER, group: 1, rope: null }],
};
const CAPACITY = 64;

export interface PlainSequence {
  image: SnapshotImage;
  blocks: Uint8Array[];
}

function heldBlocks({ length }: SnapshotImage): HeldBlock[] {
  if (length > CAPACITY) throw snapshotMismatch('length', `at most ${CAPACITY}`, `${length}`);
  return [0, 1].flatMap((group) =>
    Array.from({ length: Math.ceil(length / 16) }, (_, ordinal) => {
      const tokens = Math.min(16, length - ordinal * 16);
      return { group, tail: group === 1 && tokens < 16, ordinal, tokens };
    }),
  );
}

/** Two groups differ in their blocks' bytes. */
function blockBytes({ group, tail }: HeldBlock): number {
  return 3 + group * 4 + (tail ? 2 : 0);
}

/** A cache that keeps what is restored into it, and counts what is begun and given back. */
export class PlainCache implements SnapshotTarget<PlainSequence> {
  begun = 0;
  aborted = 0;
  constructor(
    readonly fingerprint = FINGERPRINT,
    readonly scale = 1,
  ) {}
  blockBytes = (place: HeldBlock) => blockBytes(place) * this.scale;
  heldBlocks = heldBlocks;

  begin(image: SnapshotImage) {
    this.begun++;
    const blocks: Uint8Array[] = [];
    return {
      write: (index: number, bytes: Uint8Array) =>
        void (blocks[index] = Uint8Array.prototype.slice.call(bytes)),
      finish: () => ({ image, blocks }),
      abort: () => void this.aborted++,
    };
  }
}

/** A sequence of random bytes, which counts how often each block is read. */
export class PlainSource implements SnapshotSource {
  readonly image: SnapshotImage;
  readonly blocks: HeldBlock[];
  readonly contents: Uint8Array[];
  readonly reads: number[];

  constructor(
    length: number,
    seed = 1,
    readonly fingerprint = FINGERPRINT,
    /** Bytes of a block grow by this factor. */
    readonly scale = 1,
  ) {
    const random = new Random(seed);
    const group: HeldRing = { peak: length, start: 0, tailFrom: 0, floatSinks: 0 };
    this.image = { length, groups: [group, { ...group, peak: length + 5 }] };
    this.blocks = heldBlocks(this.image);
    this.contents = this.blocks.map((place) =>
      // Repeated where blocks are scaled up: random numbers are slow.
      Uint8Array.from(
        Buffer.alloc(
          this.blockBytes(place),
          Buffer.from(Array.from({ length: blockBytes(place) }, () => random.int(0, 255))),
        ),
      ),
    );
    this.reads = this.blocks.map(() => 0);
  }

  blockBytes(place: HeldBlock): number {
    return blockBytes(place) * this.scale;
  }

  read(index: number, bytes: Uint8Array): void {
    this.reads[index]++;
    bytes.set(this.contents[index]);
  }

  /** What a cache must hold after it was restored. */
  get whole(): PlainSequence {
    return { image: this.image, blocks: this.contents };
  }
}
