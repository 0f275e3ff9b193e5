// Rows of floats into panels (layout.h), keys and values into blocks. A lane of keys is a token, of values a dim, of
// weights an output feature.
#pragma once

namespace gqa {
namespace {

// Contraction step l of vector v.
GQA_INLINE void packRow(const PanelLayout& layout, char* base, int64_t v, int64_t l, Vec lanes) {
  const DType type = layout.dtype;
  char* row = base + layout.vectorOffset(v) + l / panelStep(type) * layout.rowBytes(v);
  if (type == DType::f32) return store(reinterpret_cast<float*>(row), lanes);
  if (type == DType::f16) return storeF16(reinterpret_cast<uint16_t*>(row), lanes);
  uint16_t bits[kLanes];
  storeBf16(bits, lanes);
  uint16_t* to = reinterpret_cast<uint16_t*>(row) + l % 2;
  for (int64_t i = 0; i < kLanes; ++i) to[2 * i] = bits[i];
}

// Vector v from `lanes` <= 16 rows (tokens or output features) that lie `stride` elements apart.
GQA_INLINE void packVector(const PanelLayout& layout, char* base, int64_t v, DType from, const char* src,
                           int64_t stride, int64_t lanes) {
  alignas(64) float tile[kLanes * kLanes];
  for (int64_t l = 0; l < layout.steps; l += kLanes) {
    const int64_t n = lanesLeft(l, layout.steps);
    transposeAs(from, elementAt(src, from, l), stride, lanes, n, tile);
    for (int64_t i = 0; i < n; ++i) packRow(layout, base, v, l + i, load(tile + i * kLanes));
  }
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
      char* row = first + (l + i) / panelStep(type) * rowBytes;
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

// A KV head's part of an append: rows [from, from + count) of k and v to positions position, position + 1, ...
void storeTokens(const StoreProblem& p, int64_t kvHead) {
  const BlockLayout& layout = p.arena.layout;
  const int64_t keyStride = p.arena.kvHeads * layout.headDim, valueStride = p.arena.kvHeads * layout.valueDim;
  for (int64_t i = 0; i < p.count;) {
    const int64_t position = p.position + i, slot = position % layout.blockTokens;
    char* block = p.arena.block(kvHead, p.table.slot(position / layout.blockTokens));
    const char* k = elementAt(p.k, p.type, (p.from + i) * keyStride + kvHead * layout.headDim);
    const char* v = elementAt(p.v, p.type, (p.from + i) * valueStride + kvHead * layout.valueDim);

    const bool wholeVector = slot % kLanes == 0 && p.count - i >= kLanes;
    const int64_t tokens = wholeVector ? kLanes : 1;
    if (wholeVector)
      packVector(layout.keys(), block, slot / kLanes, p.type, k, keyStride, kLanes);
    else
      packLane(layout.keys(), block, slot, p.type, k);
    for (int64_t t = 0; t < tokens; ++t)
      packStep(layout.values(), block + layout.valueOffset(), slot + t, p.type, elementAt(v, p.type, t * valueStride));
    i += tokens;
  }
}

}  // namespace
}  // namespace gqa
