/** The backend that needs no binary: every operation of the contract in plain JavaScript, on the calling thread. */
import type { ArenaLayout, Backend } from '../contract';
import { JsArena } from './arena';
import { attend, attendAsync } from './attend';
import { add, allBelow, convert, rmsNorm, rope, swiglu } from './elementwise';
import { fusedLinear } from './fused-linear';
import { linear } from './linear';
import { gather, packWeights, store } from './pack';
import { probeFma, probeRead } from './probe';
import { merge } from './states';

function toCome(): never {
  throw new Error('to come');
}

/** @param reason why this backend is the one in use, for people. */
export function createJsBackend(reason: string): Backend {
  return {
    info: { kind: 'js', isa: 'js', threads: 1, reason },
    createArena: (layout: ArenaLayout) => new JsArena(layout),
    store,
    copyBlock: toCome,
    moveTokens: toCome,
    readBlock: toCome,
    writeBlock: toCome,
    attendStep: toCome,
    attend,
    attendAsync,
    merge,
    packWeights,
    linear,
    fusedLinear,
    gather,
    rmsNorm,
    rope,
    swiglu,
    add,
    convert,
    allBelow,
    // One thread it is, whatever the limit.
    limitThreads: () => undefined,
    probeRead,
    probeFma,
    // JavaScript has one thread, and no instruction for either.
    probeDot: () => 0,
    probeTiles: () => 0,
    probeWake: () => null,
  };
}
