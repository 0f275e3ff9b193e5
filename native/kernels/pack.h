// Rows of floats into panels (layout.h), keys and values into blocks. A lane of keys is a token, of values a dim, of
// weights an output feature.
#pragma once

namespace gqa {
namespace {

// Contraction step l of vector v.
GQA_INLINE void packRow(const PanelLayout& layout, char* base, int64_t v, int64_t l, Vec lanes) {
  const DType type = layout.dtype;
  char* row = base + layout.vectorOffset(v) + (l >> panelBits(type)) * layout.rowBytes(v);
  if (type == DType::f32) return store(reinterpret_cast<float*>(row), lanes);
  if (type == DType::f16) return storeF16(reinterpret_cast<uint16_t*>(row), lanes);
  uint16_t bits[kLanes];
  storeBf16(bits, lanes);
  uint16_t* to = reinterpret_cast<uint16_t*>(row) + l % 2;
  for (int64_t i = 0; i < kLanes; ++i) to[2 * i] = bits[i];
}

// Whole 32 steps of vector v from 16 rows of bf16: pairs move as words. Returns how many steps that were.
GQA_INLINE int64_t packPairs(const PanelLayout& layout, char* base, int64_t v, const char* src, int64_t stride) {
  alignas(64) float tile[kLanes * kLanes];
  char* row = base + layout.vectorOffset(v);
  int64_t l = 0;
  for (; l + 2 * kLanes <= layout.steps; l += 2 * kLanes) {
    transpose16(reinterpret_cast<const float*>(src + 2 * l), stride / 2, tile);
    for (int64_t i = 0; i < kLanes; ++i, row += layout.rowBytes(v))
      store(reinterpret_cast<float*>(row), load(tile + i * kLanes));
  }
  return l;
}

// Vector v from `lanes` <= 16 rows (tokens or output features) that lie `stride` elements apart.
GQA_INLINE void packVector(const PanelLayout& layout, char* base, int64_t v, DType from, const char* src,
                           int64_t stride, int64_t lanes) {
  alignas(64) float tile[kLanes * kLanes];
  const bool pairs = from == DType::bf16 && layout.dtype == DType::bf16 && lanes == kLanes && stride % 2 == 0;
  for (int64_t l = pairs ? packPairs(layout, base, v, src, stride) : 0; l < layout.steps; l += kLanes) {
    const int64_t n = lanesLeft(l, layout.steps);
    transposeAs(from, elementAt(src, from, l), stride, lanes, n, tile);
    for (int64_t i = 0; i < n; ++i) packRow(layout, base, v, l + i, load(tile + i * kLanes));
  }
  if (layout.paddedSteps() > layout.steps) packRow(layout, base, v, layout.steps, zero());
}

// Contraction step l of vector v, back.
GQA_INLINE Vec unpackStep(const PanelLayout& layout, const char* base, int64_t v, int64_t l) {
  const char* row = base + layout.vectorOffset(v) + (l >> panelBits(layout.dtype)) * layout.rowBytes(v);
  if (layout.dtype == DType::f32) return PanelF32::first(row);
  if (layout.dtype == DType::f16) return PanelF16::first(row);
  return l % 2 ? PanelBf16::second(row) : PanelBf16::first(row);
}

// One lane of every row: a single token's key.
GQA_INLINE void packLane(const PanelLayout& layout, char* base, int64_t lane, DType from, const char* src) {
  const DType type = layout.dtype;
  const int64_t rowBytes = layout.rowBytes(lane / kLanes);
  char* first = base + layout.vectorOffset(lane / kLanes);
  for (int64_t l = 0; l < layout.steps; l += kLanes) {
    const int64_t n = lanesLeft(l, layout.steps), at = lane % kLanes;
    const Vec x = loadAs(from, elementAt(src, from, l), n);
    float values[kLanes];
    uint16_t bits[kLanes];
    if (type == DType::f32)
      store(values, x);
    else
      storeHalf(type, bits, x);
    for (int64_t i = 0; i < n; ++i) {
      char* row = first + ((l + i) >> panelBits(type)) * rowBytes;
      if (type == DType::f32)
        reinterpret_cast<float*>(row)[at] = values[i];
      else
        reinterpret_cast<uint16_t*>(row)[type == DType::bf16 ? 2 * at + (l + i) % 2 : at] = bits[i];
    }
  }
}

// One contraction step of every vector: a single token's value.
GQA_INLINE void packStep(const PanelLayout& layout, char* base, int64_t step, DType from, const char* src) {
  for (int64_t v = 0; v < layout.vectors(); ++v)
    packRow(layout, base, v, step, loadAs(from, elementAt(src, from, v * kLanes), lanesLeft(v * kLanes, layout.lanes)));
}

// to[2 i] = a[i], to[2 i + 1] = b[i].
GQA_INLINE void zipHalves(const uint16_t* a, const uint16_t* b, uint16_t* to) {
  uint16_t pairs[2 * kLanes];
  for (int64_t i = 0; i < kLanes; ++i) {
    pairs[2 * i] = a[i];
    pairs[2 * i + 1] = b[i];
  }
  std::memcpy(to, pairs, sizeof pairs);
}

// Steps [step, step + steps) of every vector from rows of bf16, two rows at a time; `step` is even, and what completes
// the last pair is zero.
GQA_INLINE void packStepPairs(const PanelLayout& layout, char* base, int64_t step, const char* src, int64_t stride,
                              int64_t steps) {
  for (int64_t s = 0; s < steps; s += 2)
    for (int64_t v = 0; v < layout.vectors(); ++v) {
      const int64_t n = lanesLeft(v * kLanes, layout.lanes);
      const char* first = src + 2 * (s * stride + v * kLanes);
      uint16_t rows[2][kLanes] = {};
      std::memcpy(rows[0], first, size_t(n) * 2);
      if (s + 1 < steps) std::memcpy(rows[1], first + 2 * stride, size_t(n) * 2);
      char* to = base + layout.vectorOffset(v) + (step + s) / 2 * layout.rowBytes(v);
      zipHalves(rows[0], rows[1], reinterpret_cast<uint16_t*>(to));
    }
}

// Steps [step, step + steps) of every vector, `step` a multiple of 16, from rows that lie `stride` elements apart.
GQA_INLINE void packSteps(const PanelLayout& layout, char* base, int64_t step, DType from, const char* src,
                          int64_t stride, int64_t steps) {
  if (from == DType::bf16 && layout.dtype == DType::bf16) return packStepPairs(layout, base, step, src, stride, steps);
  for (int64_t s = 0; s < steps; ++s) packStep(layout, base, step + s, from, elementAt(src, from, s * stride));
}

// Rows of 16 tokens at most, in the floats of their dtype.
struct TokenRows {
  DType type;
  const char* base;
  int64_t stride;  // elements

  GQA_INLINE const char* at(int64_t i) const { return elementAt(base, type, i * stride); }
};

// The same rows turned, as f32.
GQA_INLINE TokenRows rotatedRows(const TokenRows& rows, int64_t count, int64_t dims, float* scratch) {
  const int64_t stride = roundUp(dims, kLanes);
  for (int64_t i = 0; i < count; ++i) {
    float* to = scratch + i * stride;
    for (int64_t d = 0; d < dims; d += kLanes)
      store(to + d, loadAs(rows.type, elementAt(rows.at(i), rows.type, d), lanesLeft(d, dims)));
    rotateRow(to, dims);
  }
  return {DType::f32, reinterpret_cast<const char*>(scratch), stride};
}

// A KV head's part of an append: rows [from, from + count) of k and v to positions position, position + 1, ...
void storeTokens(const StoreProblem& p, int64_t kvHead, float* scratch) {
  const BlockLayout& layout = p.arena.layout;
  const int64_t keyStride = p.arena.kvHeads * layout.headDim, valueStride = p.arena.kvHeads * layout.valueDim;
  for (int64_t i = 0; i < p.count;) {
    const int64_t position = p.position + i, slot = position % layout.blockTokens;
    const bool wholeVector = slot % kLanes == 0 && p.count - i >= kLanes;
    const int64_t tokens = wholeVector ? kLanes : 1;
    char* block = p.arena.block(kvHead, p.table.slot(position / layout.blockTokens));
    char* values = block + layout.valueOffset();
    TokenRows k = {p.type, elementAt(p.k, p.type, (p.from + i) * keyStride + kvHead * layout.headDim), keyStride};
    if (layout.rotateKeys) k = rotatedRows(k, tokens, layout.headDim, scratch);
    if (wholeVector)
      packVector(layout.keys(), block, slot / kLanes, k.type, k.base, k.stride, kLanes);
    else
      packLane(layout.keys(), block, slot, k.type, k.base);
    TokenRows v = {p.type, elementAt(p.v, p.type, (p.from + i) * valueStride + kvHead * layout.valueDim), valueStride};
    if (layout.rotateValues) v = rotatedRows(v, tokens, layout.valueDim, scratch);
    if (wholeVector)
      packSteps(layout.values(), values, slot, v.type, v.base, v.stride, kLanes);
    else
      packStep(layout.values(), values, slot, v.type, v.base);
    i += tokens;
  }
}

}  // namespace
}  // namespace gqa
