// Where every element of the packed layouts lies: panels of floats or of quantised values, the blocks of a KV cache,
// the weights of a linear layer. docs/numerics.md has the formulas in words and the figures behind them.
#pragma once
#include <cstddef>
#include <cstdint>

// Never emitted out of line: files built for a wider instruction set must not leave shared copies behind.
#if defined(_MSC_VER)
#define GQA_INLINE __forceinline
#define GQA_NOINLINE __declspec(noinline)
#else
#define GQA_INLINE inline __attribute__((always_inline))
#define GQA_NOINLINE __attribute__((noinline))
#endif

// Makes the compiler forget what it knows of a pointer: it would compute the addresses of an unrolled loop beforehand,
// more than there are registers, where base and displacement cost nothing.
#if defined(_MSC_VER)
#define GQA_OPAQUE(pointer) (void)0
#else
#define GQA_OPAQUE(pointer) __asm__("" : "+r"(pointer))
#endif

namespace gqa {

// The last three are quantised in groups of 32 like GGUF's blocks of the same names: x = scale * q, scale * (q - 8),
// scale * q + minimum. Of a cache's keys q8_0 and q4_1 say how wide q is; see KeyPanel.
enum class DType : int32_t { f32 = 0, f16 = 1, bf16 = 2, i8 = 3, u8 = 4, i32 = 5, q8_0 = 6, q4_0 = 7, q4_1 = 8 };

// Lanes of a vector: tokens of K, dims of V, output features of a weight. Packed layouts are made of panels of up to 64
// lanes (the last of a layout may be 16, 32 or 48 wide), each [contraction step / k][lanes][k]: a pass over a panel
// walks memory in order, and one row of it feeds as many accumulators as the widest registers hold.
constexpr int64_t kLanes = 16;
constexpr int64_t kPanelLanes = 64;
constexpr int64_t kPanelVectors = kPanelLanes / kLanes;
// Token slots of a block at most: one panel of keys; its scores for one row stay in L1.
constexpr int64_t kMaxBlockTokens = kPanelLanes;
// Values that share a scale.
constexpr int64_t kGroup = 32;

GQA_INLINE constexpr int64_t roundUp(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

GQA_INLINE constexpr bool isQuantised(DType t) { return t == DType::q8_0 || t == DType::q4_0 || t == DType::q4_1; }
// Contraction steps stored side by side in a lane: what fills a 32-bit word, single elements for f32 and f16. As a
// power of two, for layouts are asked per block and a division takes as long as a row of one.
GQA_INLINE constexpr int panelBits(DType t) {
  return t == DType::bf16 ? 1 : t == DType::q8_0 ? 2 : isQuantised(t) ? 3 : 0;
}
GQA_INLINE constexpr int64_t panelStep(DType t) { return int64_t(1) << panelBits(t); }
GQA_INLINE constexpr int64_t elementBytes(DType t) { return t == DType::f32 ? 4 : 2; }  // of f32, f16, bf16
// Bytes of a lane's k steps.
GQA_INLINE constexpr int64_t laneBytes(DType t) { return t == DType::f16 ? 2 : 4; }
// Bytes of a group's f16 scale, and minimum.
GQA_INLINE constexpr int64_t scaleBytes(DType t) { return !isQuantised(t) ? 0 : t == DType::q4_1 ? 4 : 2; }
// Bytes of a group as GGUF stores it, a block: its scale, and minimum, then its values.
GQA_INLINE constexpr int64_t blockBytes(DType t) { return (kGroup >> panelBits(t)) * laneBytes(t) + scaleBytes(t); }

// Panels of `lanes` lanes (padded to 16) over `steps` contraction steps (padded to k, or to 32 where quantised).
// A quantised panel is a run of chunks, one per 32 steps: 32/k rows, then the lanes' scales, then their minimums.
struct PanelLayout {
  DType dtype;
  int64_t lanes, steps;

  GQA_INLINE int64_t vectors() const { return roundUp(lanes, kLanes) / kLanes; }
  GQA_INLINE int64_t paddedSteps() const {
    const int64_t last = (isQuantised(dtype) ? kGroup : panelStep(dtype)) - 1;
    return (steps + last) & ~last;
  }
  GQA_INLINE int64_t rows() const { return paddedSteps() >> panelBits(dtype); }
  GQA_INLINE int64_t groups() const { return isQuantised(dtype) ? paddedSteps() / kGroup : 0; }
  // 16 lanes of a row, with their k steps.
  GQA_INLINE int64_t vectorBytes() const { return kLanes * laneBytes(dtype); }
  // Everything a panel holds for 16 of its lanes.
  GQA_INLINE int64_t columnBytes() const { return rows() * vectorBytes() + groups() * kLanes * scaleBytes(dtype); }
  GQA_INLINE int64_t panelBytes() const { return columnBytes() * kPanelVectors; }
  GQA_INLINE int64_t bytes() const { return columnBytes() * vectors(); }
  // Vectors of a row in the panel that holds vector v, and where that vector's first row lies.
  GQA_INLINE int64_t rowVectors(int64_t v) const {
    const int64_t first = v / kPanelVectors * kPanelVectors;
    return vectors() - first < kPanelVectors ? vectors() - first : kPanelVectors;
  }
  GQA_INLINE int64_t rowBytes(int64_t v) const { return rowVectors(v) * vectorBytes(); }
  GQA_INLINE int64_t vectorOffset(int64_t v) const {
    return v / kPanelVectors * panelBytes() + v % kPanelVectors * vectorBytes();
  }
  // Quantised: bytes of a chunk, and of its rows, in the panel that holds vector v; where chunk `group` of vector v has
  // its first row, and its scales; minimums lie rowVectors(v) * 32 bytes behind the scales.
  GQA_INLINE int64_t chunkRowsBytes(int64_t v) const { return (kGroup >> panelBits(dtype)) * rowBytes(v); }
  GQA_INLINE int64_t chunkBytes(int64_t v) const {
    return chunkRowsBytes(v) + rowVectors(v) * kLanes * scaleBytes(dtype);
  }
  GQA_INLINE int64_t chunkOffset(int64_t v, int64_t group) const { return vectorOffset(v) + group * chunkBytes(v); }
  GQA_INLINE int64_t scalesOffset(int64_t v, int64_t group) const {
    return v / kPanelVectors * panelBytes() + group * chunkBytes(v) + chunkRowsBytes(v) +
           v % kPanelVectors * kLanes * 2;
  }
};

// The pieces of a word of quantised K or V, lowest first, are bytes (q8_0) or nibbles. Byte j of a 4-bit word holds
// steps j and 4 + j. Of bytes steps (0, 1), and (2, 3), are 16 bits apart, so that they come out as pairs of 16-bit
// numbers in their own order.
GQA_INLINE constexpr int64_t blockStepOf(DType t, int64_t piece) {
  return t == DType::q8_0 ? piece % 2 * 2 + piece / 2 : piece / 2 + piece % 2 * 4;
}
GQA_INLINE constexpr int64_t blockPieceOf(DType t, int64_t step) {
  return t == DType::q8_0 ? step % 2 * 2 + step / 2 : step % 4 * 2 + step / 4;
}

// Quantised keys of a block, whose lanes are its tokens and whose steps are dims: every dim has a minimum and a scale.
// A panel is its rows [dims/k][lanes][k], then the dims' minimums and their scales, f16, both padded to 16.
struct KeyPanel {
  DType dtype;
  int64_t tokens, dims;

  GQA_INLINE int64_t rowBytes() const { return tokens * 4; }
  GQA_INLINE int64_t rows() const { return (dims + panelStep(dtype) - 1) >> panelBits(dtype); }
  GQA_INLINE int64_t vectorOffset(int64_t v) const { return v * kLanes * 4; }
  GQA_INLINE int64_t paddedDims() const { return roundUp(dims, kLanes); }
  GQA_INLINE int64_t minimumsOffset() const { return rows() * rowBytes(); }
  GQA_INLINE int64_t scalesOffset() const { return minimumsOffset() + paddedDims() * 2; }
  GQA_INLINE int64_t bytes() const { return scalesOffset() + paddedDims() * 2; }
};

// Quantised values of a block, whose lanes are dims and whose steps are tokens: 32 dims of one token share a scale. A
// panel is its rows [tokens/k][lanes][k], then, per 32 of its lanes, the tokens' scales and their minimums.
struct ValuePanels {
  DType dtype;
  int64_t lanes, tokens;

  GQA_INLINE int64_t vectors() const { return roundUp(lanes, kGroup) / kLanes; }
  GQA_INLINE int64_t rowVectors(int64_t v) const {
    const int64_t left = vectors() - v / kPanelVectors * kPanelVectors;
    return left < kPanelVectors ? left : kPanelVectors;
  }
  GQA_INLINE int64_t rowBytes(int64_t v) const { return rowVectors(v) * kLanes * 4; }
  GQA_INLINE int64_t rows() const { return tokens >> panelBits(dtype); }
  // A group's scales, and minimums.
  GQA_INLINE int64_t scalesBytes() const { return tokens * scaleBytes(dtype); }
  GQA_INLINE int64_t columnBytes() const { return rows() * kLanes * 4 + scalesBytes() / 2; }
  GQA_INLINE int64_t panelOffset(int64_t v) const { return v / kPanelVectors * kPanelVectors * columnBytes(); }
  GQA_INLINE int64_t vectorOffset(int64_t v) const { return panelOffset(v) + v % kPanelVectors * kLanes * 4; }
  // Scales of the group that holds vector v; minimums lie tokens * 2 bytes behind.
  GQA_INLINE int64_t scalesOffset(int64_t v) const {
    return panelOffset(v) + rows() * rowBytes(v) + v % kPanelVectors / 2 * scalesBytes();
  }
  GQA_INLINE int64_t bytes() const { return columnBytes() * vectors(); }
};

// One block of one KV head: K, a panel whose lanes are its tokens, then V, panels whose lanes are the value dims.
struct BlockLayout {
  DType keyType, valueType;
  int64_t headDim, valueDim, blockTokens;
  bool rotateKeys = false, rotateValues = false;  // stored turned by the rotation of kernels/rotate.h

  GQA_INLINE PanelLayout keys() const { return {keyType, blockTokens, headDim}; }
  GQA_INLINE PanelLayout values() const { return {valueType, valueDim, blockTokens}; }
  GQA_INLINE KeyPanel quantisedKeys() const { return {keyType, blockTokens, headDim}; }
  GQA_INLINE ValuePanels quantisedValues() const { return {valueType, valueDim, blockTokens}; }
  GQA_INLINE int64_t keyBytes() const { return isQuantised(keyType) ? quantisedKeys().bytes() : keys().bytes(); }
  GQA_INLINE int64_t valueOffset() const { return roundUp(keyBytes(), 64); }
  GQA_INLINE int64_t valueBytes() const {
    return isQuantised(valueType) ? quantisedValues().bytes() : values().bytes();
  }
  GQA_INLINE int64_t bytes() const { return valueOffset() + roundUp(valueBytes(), 64); }
};

// One layer's storage, [kvHeads][blocks] blocks: a head's blocks lie together in memory.
struct ArenaView {
  char* base;
  BlockLayout layout;
  int64_t kvHeads, blocks;

  GQA_INLINE char* block(int64_t head, int64_t id) const { return base + (head * blocks + id) * layout.bytes(); }
};

// See BlockTable in contract.ts.
struct BlockTable {
  const int32_t* ids;
  int64_t sinkBlocks, ringBlocks;

  GQA_INLINE int64_t slot(int64_t ordinal) const {
    const int64_t ringed = ordinal - sinkBlocks;
    return ids[ringed < ringBlocks ? ordinal : sinkBlocks + ringed % ringBlocks];
  }
};

// See TailSource in contract-cache.ts; arena.base is null where there is none.
struct TailView {
  ArenaView arena;
  BlockTable table;
  int64_t sinkOrdinals, firstOrdinal;
};

// Packed weights: panels whose lanes are the output features (rows) and whose steps are the input features (columns).
struct WeightsView {
  char* base;
  DType dtype;
  int64_t rows, columns;

  GQA_INLINE PanelLayout layout() const { return {dtype, rows, columns}; }
  GQA_INLINE int64_t bytes() const { return layout().bytes(); }
};

}  // namespace gqa
