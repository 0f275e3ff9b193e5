/** Pages of native memory, returned to the system by `dispose` or with the handle. */
import type { Addon, Handle } from './addon';
import type * as contract from './contract';

/** Behind an external value. */
export class NativeStorage {
  private live = true;

  constructor(
    private readonly addon: Addon,
    readonly handle: Handle,
    readonly bytes: number,
  ) {}

  dispose(): void {
    if (!this.live) return;
    this.live = false;
    this.addon.release(this.handle);
  }
}

export class NativeArena extends NativeStorage implements contract.Arena {
  constructor(
    addon: Addon,
    handle: Handle,
    bytes: number,
    readonly layout: contract.ArenaLayout,
  ) {
    super(addon, handle, bytes);
  }
}

export class NativeWeights extends NativeStorage implements contract.PackedWeights {
  constructor(
    addon: Addon,
    handle: Handle,
    bytes: number,
    readonly rows: number,
    readonly columns: number,
  ) {
    super(addon, handle, bytes);
  }
}
