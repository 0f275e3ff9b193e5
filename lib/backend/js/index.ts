/** The backend that needs no binary: every operation of the contract in plain JavaScript, on the calling thread. */
import type { ArenaLayout, Backend } from '../contract';
import { JsArena } from './arena';
import { attend, attendAsync, attendStep } from './attend';
import { readBlock, writeBlock } from './block-bytes';
import { copyBlock } from './blocks';
import { activate } from './activation';
import { add, allBelow, convert, rope } from './elementwise';
import { fusedLinear } from './fused-linear';
import { linear } from './linear';
import { gather, packWeights } from './pack';
import { probeFma, probeRead } from './probe';
import { layerNorm, rmsNorm } from './norm';
import { merge } from './states';
import { moveTokens, store } from './store';
import { jsTraining } from './training';

/** @param reason why this backend is the one in use, for people. */
export function createJsBackend(reason: string): Backend {
  return {
    ...jsTraining,
    info: { kind: 'js', isa: 'js', threads: 1, reason },
    createArena: (layout: ArenaLayout) => new JsArena(layout),
    store,
    copyBlock,
    moveTokens,
    readBlock,
    writeBlock,
    attend,
    attendStep,
    attendAsync,
    merge,
    packWeights,
    packedFiles: null,
    linear,
    fusedLinear,
    gather,
    rmsNorm,
    layerNorm,
    rope,
    activate,
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
