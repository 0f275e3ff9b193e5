// Slots of the Float64Array through which numbers arrive. lib/backend/parameters.ts has the same lists
// (test/unit/backend compares them); raise kParameterVersion in both when a list changes.
#pragma once

namespace gqa {

constexpr int kParameterVersion = 10;
constexpr int kParameterCount = 40;

namespace result {
enum : int { status, argument };
}

// The first three are those of runtime.h.
namespace status {
enum : int { ok, cancelled, outOfMemory, tooSmall, inconsistent };
}

namespace attend_flag {
enum : int {
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
  statistics = 1024
};
}

namespace attend_slot {
enum : int {
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
  statisticsRecentTokens
};
}

// Beside those of attend_slot, whose queryTokens are the rows of all entries.
namespace step_slot {
enum : int { count = 33, shareCount = 34 };
}

namespace entry_slot {
enum : int { firstToken, tokens, keyTokens, ids, tailIds, tailSinkOrdinals, tailFirstOrdinal, tree, width };
}

namespace share_slot {
enum : int { firstKey, lastKey, member, members, width };
}

// Planes of statistics; ops.h has the same.
namespace statistic {
enum : int { entropy, sinkMass, recentMass, maxLogit, visible, count };
}

namespace store_slot {
enum : int { dtype = 2, from, count, position, sinkBlocks, ringBlocks };
}

namespace arena_slot {
enum : int {
  keyDtype = 2,
  valueDtype,
  rotateKeys,
  rotateValues,
  kvHeads,
  headDim,
  valueDim,
  blockTokens,
  blocks,
  bytes
};
}

namespace copy_slot {
enum : int { fromId = 2, toId };
}

namespace move_slot {
enum : int { to = 2, count, sinkBlocks, ringBlocks };
}

namespace block_slot {
enum : int { id = 2, tokens };
}

namespace weights_slot {
enum : int { dtype = 2, rows, columns, bytes };
}

namespace merge_slot {
enum : int { dtype = 2, rows, valueDim };
}

// combine: Combine + 4 * ActivationFunction.
namespace linear_slot {
enum : int { tokens = 2, parts, combine, flags, eps };
}

namespace linear_flag {
enum : int { fast = 1, layerNorm = 2 };
}

namespace gather_slot {
enum : int { count = 2 };
}

namespace norm_slot {
enum : int { tokens = 2, dim, eps };
}

namespace rope_slot {
enum : int { tokens = 2, heads, headDim, rotaryDim, interleaved };
}

namespace count_slot {
enum : int { count = 2, fromDtype, toDtype, limit, holds };
}

namespace activate_slot {
enum : int { count = 2, function };
}

namespace transpose_slot {
enum : int { rows = 2, columns };
}

namespace cross_entropy_slot {
enum : int { rows = 2, vocab, teacherShare, weight };
}

namespace adam_w_slot {
enum : int { count = 2, gradientScale, rate, beta1, beta2, eps, decay, correction1, correction2 };
}

namespace sum_slot {
enum : int { count = 2, sum };
}

}  // namespace gqa
