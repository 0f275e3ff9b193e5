// Blocks from arena to arena, quantised or dequantised on the way, and tokens from place to place.
#pragma once

namespace gqa {
namespace {

// A panel of floats as one of another dtype.
GQA_INLINE void convertPanels(const PanelLayout& from, const char* source, const PanelLayout& to, char* panels) {
  for (int64_t v = 0; v < to.vectors(); ++v)
    for (int64_t l = 0; l < to.steps; ++l) packRow(to, panels, v, l, unpackStep(from, source, v, l));
}

// Lanes beyond the panels' own become 0, which dequantised they need not be.
GQA_INLINE void clearPadding(const PanelLayout& layout, char* panels) {
  const int64_t v = layout.lanes / kLanes;
  if (v == layout.vectors()) return;
  for (int64_t l = 0; l < layout.steps; ++l) {
    float* lanes = reinterpret_cast<float*>(panels + layout.vectorOffset(v) + l * layout.rowBytes(v));
    store(lanes, whereLane(0, layout.lanes - v * kLanes, load(lanes), zero()));
  }
}

template <DType T>
GQA_INLINE void quantiseKeys(const PanelLayout& from, const char* source, const KeyPanel& to, char* panel) {
  if (from.dtype == DType::f32) return quantiseKeys<T, DType::f32>(from, source, to, panel);
  if (from.dtype == DType::f16) return quantiseKeys<T, DType::f16>(from, source, to, panel);
  quantiseKeys<T, DType::bf16>(from, source, to, panel);
}

template <DType T>
GQA_INLINE void quantiseValues(const PanelLayout& from, const char* source, const ValuePanels& to, char* panels) {
  if (from.dtype == DType::f32) return quantiseValues<T, DType::f32>(from, source, to, panels);
  if (from.dtype == DType::f16) return quantiseValues<T, DType::f16>(from, source, to, panels);
  quantiseValues<T, DType::bf16>(from, source, to, panels);
}

GQA_INLINE void copyKeys(const BlockLayout& from, const char* source, const BlockLayout& to, char* block,
                         float* scratch) {
  PanelLayout floats = from.keys();
  if (from.keyType == to.keyType) return void(std::memcpy(block, source, size_t(from.keyBytes())));
  if (isQuantised(from.keyType)) {
    floats.dtype = DType::f32;
    char* wide = reinterpret_cast<char*>(scratch);
    widenKeys<false>(from.quantisedKeys(), source, 0, from.blockTokens, floats, wide);
    source = wide;
  }
  if (to.keyType == DType::q8_0) return quantiseKeys<DType::q8_0>(floats, source, to.quantisedKeys(), block);
  if (to.keyType == DType::q4_1) return quantiseKeys<DType::q4_1>(floats, source, to.quantisedKeys(), block);
  convertPanels(floats, source, to.keys(), block);
}

GQA_INLINE void copyValues(const BlockLayout& from, const char* source, const BlockLayout& to, char* values,
                           float* scratch) {
  PanelLayout floats = from.values();
  if (from.valueType == to.valueType) return void(std::memcpy(values, source, size_t(from.valueBytes())));
  if (isQuantised(from.valueType)) {
    floats.dtype = DType::f32;
    char* wide = reinterpret_cast<char*>(scratch);
    widenValues<false>(from.quantisedValues(), source, 0, from.blockTokens, floats, wide);
    clearPadding(floats, wide);
    source = wide;
  }
  if (to.valueType == DType::q8_0) return quantiseValues<DType::q8_0>(floats, source, to.quantisedValues(), values);
  if (to.valueType == DType::q4_1) return quantiseValues<DType::q4_1>(floats, source, to.quantisedValues(), values);
  convertPanels(floats, source, to.values(), values);
}

void copyBlock(const CopyProblem& p, int64_t kvHead, float* scratch) {
  const BlockLayout &from = p.from.layout, &to = p.to.layout;
  const char* source = p.from.block(kvHead, p.fromId);
  char* block = p.to.block(kvHead, p.toId);
  if (source == block) return;
  copyKeys(from, source, to, block, scratch);
  copyValues(from, source + from.valueOffset(), to, block + to.valueOffset(), scratch);
}

// Where an element of a panel of floats lies.
GQA_INLINE int64_t elementOffset(const PanelLayout& layout, int64_t lane, int64_t step) {
  const int64_t v = lane / kLanes, k = panelStep(layout.dtype);
  return layout.vectorOffset(v) + step / k * layout.rowBytes(v) +
         (lane % kLanes * k + step % k) * elementBytes(layout.dtype);
}

void moveTokens(const MoveProblem& p, int64_t kvHead) {
  const BlockLayout& layout = p.arena.layout;
  const PanelLayout keys = layout.keys(), values = layout.values();
  const size_t keySize = size_t(elementBytes(keys.dtype)), valueSize = size_t(elementBytes(values.dtype));
  for (int64_t i = 0; i < p.count; ++i) {
    const int64_t from = p.from[i], to = p.to + i, source = from % layout.blockTokens, slot = to % layout.blockTokens;
    const char* a = p.arena.block(kvHead, p.table.slot(from / layout.blockTokens));
    char* b = p.arena.block(kvHead, p.table.slot(to / layout.blockTokens));
    for (int64_t d = 0; d < layout.headDim; ++d)
      std::memmove(b + elementOffset(keys, slot, d), a + elementOffset(keys, source, d), keySize);
    a += layout.valueOffset();
    b += layout.valueOffset();
    for (int64_t d = 0; d < layout.valueDim; ++d)
      std::memmove(b + elementOffset(values, d, slot), a + elementOffset(values, d, source), valueSize);
  }
}

}  // namespace
}  // namespace gqa
