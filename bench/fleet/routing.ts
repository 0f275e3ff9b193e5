/** How a load balancer chooses the replica of a request. */
import type { Request } from './trace';

export interface Fleet {
  /** Requests that each replica has not answered yet. */
  readonly active: Int32Array;
  /** Of all. */
  readonly totalActive: number;
  /** 1 where it runs. */
  readonly alive: Uint8Array;
  readonly living: number;
}

export interface Router {
  /** What a user would call it. */
  readonly name: string;
  pick(request: Request, fleet: Fleet): number;
}

export class RoundRobin implements Router {
  readonly name = 'round robin';
  private next = 0;

  pick(_: Request, { alive }: Fleet): number {
    do this.next = (this.next + 1) % alive.length;
    while (alive[this.next] === 0);
    return this.next;
  }
}

/** Mixes all bits of an integer: murmur3's last step. */
function mix(value: number): number {
  let x = value | 0;
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return (x ^ (x >>> 16)) >>> 0;
}

/** Points of a replica on the ring: nginx's, for a weight of 1. */
const POINTS = 160;

/** Consistent hashing: a key belongs to the next point on a ring of 2^32; a lost replica's keys go to the points that follow. */
export class Ring {
  private readonly points: Float64Array;

  constructor(replicas: number) {
    // Hash and replica in one number, to be sorted as one.
    this.points = Float64Array.from({ length: replicas * POINTS }, (_, i) => {
      return mix(mix(i + 1) ^ 0x5bd1e995) * 2 ** 20 + Math.floor(i / POINTS);
    }).sort();
  }

  /** The first replica from the key's place on that will do. */
  find(key: number, willDo: (replica: number) => boolean): number {
    const { points } = this;
    const place = mix(key) * 2 ** 20;
    let low = 0;
    for (let high = points.length; low < high;) {
      const middle = (low + high) >> 1;
      if (points[middle] < place) low = middle + 1;
      else high = middle;
    }
    for (let i = 0; i < points.length; i++) {
      const replica = points[(low + i) % points.length] % 2 ** 20;
      if (willDo(replica)) return replica;
    }
    throw new Error('no replica will do');
  }
}

export type KeyOf = 'conversation' | 'application';

/**
 * Consistent hash of X-Gqa-Prefix. With a bound, a replica that has more than so many times its share of the requests in
 * flight is passed over (Mirrokni, Thorup and Zadimoghaddam, 2018).
 */
export class Hashing implements Router {
  readonly name: string;
  private readonly ring: Ring;

  constructor(
    replicas: number,
    private readonly key: KeyOf,
    private readonly bound = Infinity,
  ) {
    this.name = `${bound === Infinity ? 'hash' : `hash, bounded ${bound}`}, of the ${key}`;
    this.ring = new Ring(replicas);
  }

  pick(request: Request, { active, totalActive, alive, living }: Fleet): number {
    const most = Math.ceil((this.bound * (totalActive + 1)) / living);
    return this.ring.find(request[this.key], (i) => alive[i] === 1 && active[i] < most);
  }
}
