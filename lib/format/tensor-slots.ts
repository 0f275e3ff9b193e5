/** Where the bytes of declared tensors go, and which are still to come: a tensor is written once, and none forgotten. */
import { expectedError } from '../core/errors';
import type { OutputFile } from './output-file';

interface Slot {
  file: OutputFile;
  /** Of the next byte to write. */
  offset: number;
  end: number;
}

export class TensorSlots {
  private readonly slots = new Map<string, Slot>();

  /** @throws GqaError INVALID_ARGUMENT where two tensors have one name. */
  declare(name: string, file: OutputFile, offset: number, bytes: number): void {
    if (this.slots.has(name)) {
      throw expectedError('INVALID_ARGUMENT', 'tensors', 'unique names', `${name} twice`);
    }
    this.slots.set(name, { file, offset, end: offset + bytes });
  }

  /**
   * The place of the tensor's next bytes.
   * @throws GqaError INVALID_ARGUMENT for a tensor that was not declared or has fewer bytes left
   */
  take(name: string, bytes: number): { file: OutputFile; offset: number } {
    const slot = this.slots.get(name);
    if (slot === undefined) {
      throw expectedError('INVALID_ARGUMENT', name, 'a tensor that was declared', 'another');
    }
    const { file, offset, end } = slot;
    if (bytes > end - offset) {
      const expected = `at most ${end - offset} further bytes`;
      throw expectedError('INVALID_ARGUMENT', name, expected, `${bytes} bytes`);
    }
    slot.offset += bytes;
    return { file, offset };
  }

  /** @throws GqaError INVALID_ARGUMENT naming a tensor that is not whole */
  checkComplete(): void {
    for (const [name, { offset, end }] of this.slots) {
      if (offset === end) continue;
      const received = `${end - offset} bytes too few`;
      throw expectedError('INVALID_ARGUMENT', name, 'a tensor that was written', received);
    }
  }
}
