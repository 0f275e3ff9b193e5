// A block as bytes in no backend's order, for snapshots: per KV head K, then V.
//   floats        [tokens][dims]
//   quantised K   minimums f16 [dims], scales f16 [dims], then numbers [tokens][dims] of 8 bits, or [tokens][ceil(dims
//                 / 2)] of two nibbles, the low one first
//   quantised V   [tokens] rows of GGUF's blocks of 32 dims: scale, and minimum, as f16, then the numbers
// One walk serves both directions: `kWrite` is from the bytes into the block.
#pragma once

namespace gqa {
namespace {

template <bool kWrite>
GQA_INLINE void moveBytes(char* place, uint8_t* bytes, size_t count) {
  if (kWrite)
    std::memcpy(place, bytes, count);
  else
    std::memcpy(bytes, place, count);
}

GQA_INLINE int32_t nibbleOf(const char* byte, int64_t high) { return (uint8_t(*byte) >> (4 * high)) & 15; }
GQA_INLINE void setNibble(char* byte, int64_t high, int32_t x) {
  *byte = char(high ? (uint8_t(*byte) & 15) | x << 4 : (uint8_t(*byte) & 0xf0) | x);
}
template <bool kWrite>
GQA_INLINE void moveNibble(char* place, int64_t placeHigh, uint8_t* bytes, int64_t high) {
  char* other = reinterpret_cast<char*>(bytes);
  if (kWrite)
    setNibble(place, placeHigh, nibbleOf(other, high));
  else
    setNibble(other, high, nibbleOf(place, placeHigh));
}

// Panels of floats, lanes of tokens (K) or of dims (V).
template <bool kWrite, bool kKeys>
GQA_INLINE void moveFloats(const PanelLayout& layout, char* panels, uint8_t* bytes, int64_t tokens, int64_t dims) {
  const size_t size = size_t(elementBytes(layout.dtype));
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t d = 0; d < dims; ++d, bytes += size)
      moveBytes<kWrite>(panels + (kKeys ? elementOffset(layout, t, d) : elementOffset(layout, d, t)), bytes, size);
}

template <bool kWrite>
GQA_INLINE void moveKeys(const KeyPanel& keys, char* panel, uint8_t* bytes) {
  const int64_t dims = keys.dims, k = panelStep(keys.dtype);
  moveBytes<kWrite>(panel + keys.minimumsOffset(), bytes, size_t(dims) * 2);
  moveBytes<kWrite>(panel + keys.scalesOffset(), bytes + 2 * dims, size_t(dims) * 2);
  const int64_t rowBytes = keys.dtype == DType::q8_0 ? dims : (dims + 1) / 2;
  bytes += 4 * dims;
  for (int64_t t = 0; t < keys.tokens; ++t, bytes += rowBytes)
    for (int64_t d = 0; d < dims; ++d) {
      char* word = panel + d / k * keys.rowBytes() + t * 4;
      const int64_t place = blockPieceOf(keys.dtype, d % k);
      if (keys.dtype == DType::q8_0)
        moveBytes<kWrite>(word + place, bytes + d, 1);
      else
        moveNibble<kWrite>(word + place / 2, place % 2, bytes + d / 2, d % 2);
    }
}

// Number i of 32 of a GGUF block of nibbles is the low half of byte i, or the high half of byte i - 16.
template <bool kWrite>
GQA_INLINE void moveValueGroup(const ValuePanels& values, char* panels, uint8_t* bytes, int64_t v, int64_t t) {
  const int64_t k = panelStep(values.dtype), place = blockPieceOf(values.dtype, t % k);
  char* scale = panels + values.scalesOffset(v) + t * 2;
  moveBytes<kWrite>(scale, bytes, 2);
  if (values.dtype == DType::q4_1) moveBytes<kWrite>(scale + values.tokens * 2, bytes + 2, 2);
  bytes += scaleBytes(values.dtype);
  for (int64_t i = 0; i < kGroup; ++i) {
    char* word = panels + values.vectorOffset(v + i / kLanes) + t / k * values.rowBytes(v) + i % kLanes * 4;
    if (values.dtype == DType::q8_0)
      moveBytes<kWrite>(word + place, bytes + i, 1);
    else
      moveNibble<kWrite>(word + place / 2, place % 2, bytes + i % kLanes, i / kLanes);
  }
}

template <bool kWrite>
GQA_INLINE void moveBlock(const BlockBytes& p, int64_t kvHead) {
  const BlockLayout& layout = p.arena.layout;
  const int64_t keyBytes = plainKeyBytes(layout), valueBytes = plainValueBytes(layout);
  uint8_t* bytes = p.bytes + kvHead * (keyBytes + valueBytes);
  char* block = p.arena.block(kvHead, p.id);
  if (!kWrite) std::memset(bytes, 0, size_t(keyBytes + valueBytes));
  if (isQuantised(layout.keyType))
    moveKeys<kWrite>(layout.quantisedKeys(), block, bytes);
  else
    moveFloats<kWrite, true>(layout.keys(), block, bytes, p.tokens, layout.headDim);
  bytes += keyBytes;
  block += layout.valueOffset();
  if (!isQuantised(layout.valueType))
    return moveFloats<kWrite, false>(layout.values(), block, bytes, p.tokens, layout.valueDim);
  for (int64_t t = 0; t < layout.blockTokens; ++t)
    for (int64_t d = 0; d < layout.valueDim; d += kGroup, bytes += blockBytes(layout.valueType))
      moveValueGroup<kWrite>(layout.quantisedValues(), block, bytes, d / kLanes, t);
}

void readBlock(const BlockBytes& p, int64_t kvHead) { moveBlock<false>(p, kvHead); }
// Slots from `tokens` on are written too: their bytes are zeros, and what stays in a block must be finite.
void writeBlock(const BlockBytes& p, int64_t kvHead) {
  BlockBytes whole = p;
  whole.tokens = p.arena.layout.blockTokens;
  moveBlock<true>(whole, kvHead);
}

}  // namespace
}  // namespace gqa
