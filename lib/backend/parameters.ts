/**
 * Slots of the Float64Array through which numbers reach the addon: reading a slot is far cheaper there than reading a
 * property or an argument. native/binding/parameters.h has the same lists (test/unit/backend compares them); raise
 * VERSION in both when a list changes, so that an addon built from other lists is refused.
 */
export const PARAMETER_VERSION = 10;

/** What a call leaves behind: a Status and, where an argument was refused, its position. */
export const enum Result {
  status,
  argument,
}

export const enum Status {
  ok,
  cancelled,
  outOfMemory,
  tooSmall,
  inconsistent,
}

/** Bits of AttendSlot.flags. */
export const enum AttendFlag {
  cache = 1,
  causal = 2,
  lse = 4,
  mask = 8,
  bias = 16,
  alibi = 32,
  sinkLogits = 64,
  fast = 128,
  sinkQ = 256,
  tail = 512,
  statistics = 1024,
}

export const enum AttendSlot {
  flags = 2,
  qDtype,
  outDtype,
  kvDtype,
  batch,
  queryTokens,
  keyTokens,
  heads,
  kvHeads,
  headDim,
  valueDim,
  window,
  sinkTokens,
  scale,
  softcap,
  maskBatchStride,
  maskHeadStride,
  biasBatchStride,
  biasHeadStride,
  dropout,
  dropoutSeed,
  sinkBlocks,
  ringBlocks,
  tailSinkBlocks,
  tailRingBlocks,
  tailSinkOrdinals,
  tailFirstOrdinal,
  statisticsRows,
  statisticsFirstRow,
  statisticsSinkTokens,
  statisticsRecentTokens,
}

/** Beside those of AttendSlot, whose queryTokens are the rows of all entries. */
export const enum StepSlot {
  count = 33,
  shareCount = 34,
}

export const enum StoreSlot {
  dtype = 2,
  from,
  count,
  position,
  sinkBlocks,
  ringBlocks,
}

export const enum ArenaSlot {
  keyDtype = 2,
  valueDtype,
  rotateKeys,
  rotateValues,
  kvHeads,
  headDim,
  valueDim,
  blockTokens,
  blocks,
  bytes,
}

export const enum CopySlot {
  fromId = 2,
  toId,
}

export const enum MoveSlot {
  to = 2,
  count,
  sinkBlocks,
  ringBlocks,
}

export const enum BlockSlot {
  id = 2,
  tokens,
}

export const enum WeightsSlot {
  dtype = 2,
  rows,
  columns,
  bytes,
}

export const enum MergeSlot {
  dtype = 2,
  rows,
  valueDim,
}

/** combine: Combine + 4 * ActivationFunction. */
export const enum LinearSlot {
  tokens = 2,
  parts,
  combine,
  flags,
  eps,
}

/** Bits of LinearSlot.flags. */
export const enum LinearFlag {
  fast = 1,
  layerNorm = 2,
}

export const enum GatherSlot {
  count = 2,
}

export const enum NormSlot {
  tokens = 2,
  dim,
  eps,
}

export const enum RopeSlot {
  tokens = 2,
  heads,
  headDim,
  rotaryDim,
  interleaved,
}

export const enum CountSlot {
  count = 2,
  fromDtype,
  toDtype,
  limit,
  holds,
}

export const enum ActivateSlot {
  count = 2,
  function,
}

export const enum TransposeSlot {
  rows = 2,
  columns,
}

export const enum CrossEntropySlot {
  rows = 2,
  vocab,
  teacherShare,
  weight,
}

export const enum AdamWSlot {
  count = 2,
  gradientScale,
  rate,
  beta1,
  beta2,
  eps,
  decay,
  correction1,
  correction2,
}

export const enum SumSlot {
  count = 2,
  sum,
}
