/** PackedFiles over the addon: files are mapped, or read where the system maps none. */
import { WEIGHT_DTYPE_CODE } from '../core/dtype';
import { expectedError } from '../core/errors';
import type { Addon, Handle } from './addon';
import type * as contract from './contract';
import { checkStatus } from './native-status';
import { NativeStorage, NativeWeights } from './native-storage';
import { WeightsSlot } from './parameters';

export class NativePackedFiles implements contract.PackedFiles {
  constructor(private readonly addon: Addon) {}

  open(path: string): contract.PackedFile {
    const mapped = this.addon.mapFile(path);
    if (typeof mapped === 'string') {
      throw expectedError('INVALID_FILE', path, 'a file to map', mapped);
    }
    return new NativePackedFile(this.addon, path, mapped);
  }

  read(weights: contract.PackedWeights, to: Uint8Array, from: number): void {
    this.addon.readWeights((weights as NativeWeights).handle, to, from);
    checkStatus(this.addon.parameters, 'readWeights');
  }

  checksum(weights: contract.PackedWeights): bigint {
    const sum = this.addon.checksumWeights((weights as NativeWeights).handle);
    checkStatus(this.addon.parameters, 'checksumWeights');
    return sum;
  }
}

class NativePackedFile extends NativeStorage implements contract.PackedFile {
  readonly shared: boolean;

  constructor(
    private readonly owner: Addon,
    private readonly path: string,
    mapped: { handle: Handle; bytes: number; shared: boolean },
  ) {
    super(owner, mapped.handle, mapped.bytes);
    this.shared = mapped.shared;
  }

  weights({ offset, dtype, rows, columns }: contract.PackedPlace): contract.PackedWeights {
    const p = this.owner.parameters;
    p[WeightsSlot.dtype] = WEIGHT_DTYPE_CODE[dtype];
    p[WeightsSlot.rows] = rows;
    p[WeightsSlot.columns] = columns;
    const handle = this.owner.mappedWeights(this.handle, offset);
    if (handle === undefined) {
      const expected = `${dtype} weights [${rows}, ${columns}] at ${offset}`;
      throw expectedError('INVALID_FILE', this.path, expected, `${this.bytes} bytes`);
    }
    return new NativeWeights(this.owner, handle, p[WeightsSlot.bytes], rows, columns);
  }
}
