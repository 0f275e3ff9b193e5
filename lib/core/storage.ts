/**
 * The memory of a tensor and the life it leads, in one object that reshaped tensors share.
 *
 * The state is a number so that the hot path checks disposed and busy with one comparison.
 */
import { isArrayBuffer } from 'node:util/types';
import { markAsUntransferable } from 'node:worker_threads';
import type { DType, TypedArrayOf } from './dtype';

export const IDLE = 0;
export const DISPOSED = -1;

const NO_MEMORY = new ArrayBuffer(0);

export class TensorStorage<D extends DType = DType> {
  /** DISPOSED, IDLE, or the number of async calls that use the memory. */
  state = IDLE;
  /** Where `data` lies; kept here because asking a typed array for its buffer is slow. */
  buffer: ArrayBufferLike;
  byteOffset: number;

  constructor(public data: TypedArrayOf<D>) {
    this.buffer = data.buffer;
    this.byteOffset = data.byteOffset;
  }

  /**
   * An async call begins to use the memory; it calls release() when it has settled. Other threads read it meanwhile, so
   * it must not move to another isolate, which would free it: Node can be told so, for good, and copies it instead or
   * throws. (Shared memory never moves.)
   */
  hold(): void {
    if (isArrayBuffer(this.buffer)) markAsUntransferable(this.buffer);
    this.state++;
  }

  release(): void {
    this.state--;
  }

  /** Other memory from now on; nothing uses the old one. */
  replace(data: TypedArrayOf<D>): void {
    this.data = data;
    this.buffer = data.buffer;
    this.byteOffset = data.byteOffset;
  }

  /** Lets go of the memory. `empty` is a typed array of no elements, of the same type. */
  dispose(empty: TypedArrayOf<D>): void {
    this.state = DISPOSED;
    this.data = empty;
    this.buffer = NO_MEMORY;
    this.byteOffset = 0;
  }
}
