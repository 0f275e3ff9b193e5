// Weights into panels (layout.h), from rows of floats or from GGUF's blocks of 32, and back: one row as f32, or a strip
// of some steps of a quantised panel as the panel of f32 that panel.h multiplies.
#pragma once

namespace gqa {
namespace {

// The words of a block as the rows of a panel have them. Of nibbles, byte i of GGUF holds values i (low) and i + 16
// (high), byte j of row r here steps 8r + j and 8r + 4 + j.
GQA_INLINE void blockWords(DType type, const char* values, uint32_t* words) {
  if (type == DType::q8_0) {
    std::memcpy(words, values, kGroup);
    return;
  }
  constexpr uint32_t kLow = 0x0f0f0f0fu;
  uint32_t q[4];
  std::memcpy(q, values, sizeof q);
  words[0] = (q[0] & kLow) | (q[1] & kLow) << 4;
  words[1] = (q[2] & kLow) | (q[3] & kLow) << 4;
  words[2] = (q[0] >> 4 & kLow) | (q[1] & ~kLow);
  words[3] = (q[2] >> 4 & kLow) | (q[3] & ~kLow);
}

// 16 output features, fewer at the end of the weights; rows of blocks lie one after the other.
void packBlocks(const WeightsView& w, const char* blocks, int64_t v, int64_t lanes) {
  const PanelLayout layout = w.layout();
  const int64_t rowBytes = layout.rowBytes(v), scaleBytesOfRow = layout.rowVectors(v) * kLanes * 2;
  const int64_t blockSize = blockBytes(w.dtype), rows = kGroup / panelStep(w.dtype);
  const int64_t header = scaleBytes(w.dtype);
  uint32_t words[kGroup / 4];
  for (int64_t g = 0; g < layout.groups(); ++g) {
    char* chunk = w.base + layout.chunkOffset(v, g);
    char* scales = w.base + layout.scalesOffset(v, g);
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const char* block = blocks + (lane * layout.groups() + g) * blockSize;
      blockWords(w.dtype, block + header, words);
      for (int64_t r = 0; r < rows; ++r) std::memcpy(chunk + r * rowBytes + lane * 4, words + r, 4);
      std::memcpy(scales + lane * 2, block, 2);
      if (w.dtype == DType::q4_1) std::memcpy(scales + scaleBytesOfRow + lane * 2, block + 2, 2);
    }
  }
}

// Padding stays as it is: zero from the allocation.
void packWeightVectors(const WeightsView& w, const void* weight, DType type, int64_t first, int64_t last) {
  for (int64_t v = first; v < last; ++v) {
    const int64_t lanes = lanesLeft(v * kLanes, w.rows);
    if (isQuantised(type)) {
      const int64_t rowBytes = w.columns / kGroup * blockBytes(type);
      packBlocks(w, static_cast<const char*>(weight) + v * kLanes * rowBytes, v, lanes);
    } else {
      packVector(w.layout(), w.base, v, type, elementAt(weight, type, v * kLanes * w.columns), w.columns, lanes);
    }
  }
}

// Step 4 b + n of a row of bytes; of nibbles, step j (0..7) is nibble 2j of the lower four and 2j - 7 of the upper.
template <DType type, int step>
GQA_INLINE void widenStep(IVec words, Vec scale, Vec offset, float* out) {
  constexpr int kNibble = step < 4 ? 2 * step : 2 * step - 7;
  if constexpr (type == DType::q8_0)
    store(out + step * kPanelLanes, mul(byteToFloat<step>(words), scale));
  else
    store(out + step * kPanelLanes, fma(nibbleToFloat<kNibble>(words), scale, offset));
}

// out[step][lane] of 16 lanes and the 32 steps of a group; rows of `out` are kPanelLanes floats apart.
template <DType type>
GQA_INLINE void widenGroup(const char* chunk, int64_t rowBytes, const char* scales, int64_t minimums, float* out) {
  const Vec scale = halvesAt(scales);
  const Vec offset = type == DType::q4_1 ? halvesAt(scales + minimums) : mul(scale, splat(-8.f));
  constexpr int kStep = int(panelStep(type));
#pragma GCC unroll 8
  for (int r = 0; r < kGroup / kStep; ++r, out += kStep * kPanelLanes) {
    const IVec words = loadI(chunk + r * rowBytes);
    widenStep<type, 0>(words, scale, offset, out);
    widenStep<type, 1>(words, scale, offset, out);
    widenStep<type, 2>(words, scale, offset, out);
    widenStep<type, 3>(words, scale, offset, out);
    if constexpr (kStep == 8) {
      widenStep<type, 4>(words, scale, offset, out);
      widenStep<type, 5>(words, scale, offset, out);
      widenStep<type, 6>(words, scale, offset, out);
      widenStep<type, 7>(words, scale, offset, out);
    }
  }
}

template <DType type>
void widenGroups(const WeightsView& w, int64_t v, int64_t vectors, int64_t first, int64_t last, float* strip) {
  const PanelLayout layout = w.layout();
  const int64_t rowBytes = layout.rowBytes(v), minimums = layout.rowVectors(v) * kLanes * 2;
  for (int64_t g = first; g < last; ++g, strip += kGroup * kPanelLanes)
    for (int64_t i = 0; i < vectors; ++i)
      widenGroup<type>(w.base + layout.chunkOffset(v + i, g), rowBytes, w.base + layout.scalesOffset(v + i, g),
                       minimums, strip + i * kLanes);
}

// strip[step][kPanelLanes]: groups [first, last) of vectors [v, v + vectors) of one panel, quantised.
void widenStrip(const WeightsView& w, int64_t v, int64_t vectors, int64_t first, int64_t last, float* strip) {
  if (w.dtype == DType::q8_0) return widenGroups<DType::q8_0>(w, v, vectors, first, last, strip);
  if (w.dtype == DType::q4_0) return widenGroups<DType::q4_0>(w, v, vectors, first, last, strip);
  widenGroups<DType::q4_1>(w, v, vectors, first, last, strip);
}

// out[columns]: one output feature.
void unpackWeightRow(const WeightsView& w, int64_t row, float* out) {
  alignas(64) float group[kGroup * kPanelLanes];
  const PanelLayout layout = w.layout();
  const int64_t v = row / kLanes, lane = row % kLanes;
  for (int64_t l = 0; l < w.columns; l += kGroup) {
    const int64_t steps = w.columns - l < kGroup ? w.columns - l : kGroup;
    if (isQuantised(w.dtype))
      widenStrip(w, v, 1, l / kGroup, l / kGroup + 1, group);
    else
      for (int64_t i = 0; i < steps; ++i) store(group + i * kPanelLanes, unpackStep(layout, w.base, v, l + i));
    for (int64_t i = 0; i < steps; ++i) out[l + i] = group[i * kPanelLanes + lane];
  }
}

}  // namespace
}  // namespace gqa
