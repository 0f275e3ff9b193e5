// Keys, values and weights into panels (ops.h): K [tokens/16][headDim/k][16][k], V [dims/16][tokens/k][16][k],
// weights [rows/16][columns/k][16][k], with k = 2 for bf16 and 1 otherwise.
#pragma once

namespace gqa {
namespace {

// The row of 16 lanes of contraction step l within a panel, and the distance between its lanes, in 16-bit elements.
GQA_INLINE int64_t bf16Index(int64_t l) { return l / 2 * 2 * kLanes + l % 2; }

// Contraction steps [l, l + steps) of a panel from a transposed tile [step][16 lanes].
GQA_INLINE void packTile(DType type, char* panel, int64_t l, int64_t steps, const float* tile) {
  for (int64_t s = 0; s < steps; ++s) {
    const Vec lanes = load(tile + s * kLanes);
    if (type == DType::f32) {
      store(reinterpret_cast<float*>(panel) + (l + s) * kLanes, lanes);
    } else if (type == DType::f16) {
      storeF16(reinterpret_cast<uint16_t*>(panel) + (l + s) * kLanes, lanes);
    } else {
      uint16_t bits[kLanes];
      storeBf16(bits, lanes);
      uint16_t* to = reinterpret_cast<uint16_t*>(panel) + bf16Index(l + s);
      for (int64_t i = 0; i < kLanes; ++i) to[2 * i] = bits[i];
    }
  }
}

// One panel from `lanes` <= 16 rows (tokens or output features), `steps` elements each, `stride` elements apart.
GQA_INLINE void packPanel(DType type, char* panel, DType from, const char* src, int64_t stride, int64_t lanes,
                          int64_t steps) {
  alignas(64) float tile[kLanes * kLanes];
  for (int64_t l = 0; l < steps; l += kLanes) {
    const int64_t n = lanesLeft(l, steps);
    transposeAs(from, elementAt(src, from, l), stride, lanes, n, tile);
    packTile(type, panel, l, n, tile);
  }
}

// One lane of a panel: a single token's key.
GQA_INLINE void packLane(DType type, char* panel, int64_t lane, DType from, const char* src, int64_t steps) {
  for (int64_t l = 0; l < steps; l += kLanes) {
    const int64_t n = lanesLeft(l, steps);
    const Vec x = loadAs(from, elementAt(src, from, l), n);
    if (type == DType::f32) {
      float values[kLanes];
      store(values, x);
      float* to = reinterpret_cast<float*>(panel) + l * kLanes + lane;
      for (int64_t i = 0; i < n; ++i) to[i * kLanes] = values[i];
    } else {
      uint16_t bits[kLanes];
      storeHalf(type, bits, x);
      uint16_t* to = reinterpret_cast<uint16_t*>(panel);
      if (type == DType::f16)
        for (int64_t i = 0; i < n; ++i) to[(l + i) * kLanes + lane] = bits[i];
      else
        for (int64_t i = 0; i < n; ++i) to[bf16Index(l + i) + 2 * lane] = bits[i];
    }
  }
}

// One contraction step of every value panel: a single token's value.
GQA_INLINE void packValue(DType type, char* panels, int64_t panelBytes, int64_t slot, DType from, const char* src,
                          int64_t dims) {
  for (int64_t d = 0; d < dims; d += kLanes, panels += panelBytes) {
    const Vec x = loadAs(from, elementAt(src, from, d), lanesLeft(d, dims));
    if (type == DType::f32) {
      store(reinterpret_cast<float*>(panels) + slot * kLanes, x);
    } else if (type == DType::f16) {
      storeF16(reinterpret_cast<uint16_t*>(panels) + slot * kLanes, x);
    } else {
      uint16_t bits[kLanes];
      storeBf16(bits, x);
      uint16_t* to = reinterpret_cast<uint16_t*>(panels) + bf16Index(slot);
      for (int64_t i = 0; i < kLanes; ++i) to[2 * i] = bits[i];
    }
  }
}

// A KV head's part of an append: rows [from, from + count) of k and v to positions position, position + 1, ...
void storeTokens(const StoreProblem& p, int64_t kvHead) {
  const BlockLayout& layout = p.arena.layout;
  const int64_t keyStride = p.arena.kvHeads * layout.headDim, valueStride = p.arena.kvHeads * layout.valueDim;
  for (int64_t i = 0; i < p.count;) {
    const int64_t position = p.position + i, slot = position % layout.blockTokens, lane = slot % kLanes;
    char* block = p.arena.block(kvHead, p.table.slot(position / layout.blockTokens));
    char* panel = block + slot / kLanes * layout.keyPanelBytes();
    const char* k = elementAt(p.k, p.type, (p.from + i) * keyStride + kvHead * layout.headDim);
    const char* v = elementAt(p.v, p.type, (p.from + i) * valueStride + kvHead * layout.valueDim);

    const bool wholePanel = lane == 0 && p.count - i >= kLanes;
    const int64_t tokens = wholePanel ? kLanes : 1;
    if (wholePanel)
      packPanel(layout.dtype, panel, p.type, k, keyStride, kLanes, layout.headDim);
    else
      packLane(layout.dtype, panel, lane, p.type, k, layout.headDim);
    for (int64_t t = 0; t < tokens; ++t)
      packValue(layout.dtype, block + layout.valueOffset(), layout.valuePanelBytes(), slot + t, p.type,
                elementAt(v, p.type, t * valueStride), layout.valueDim);
    i += tokens;
  }
}

void packWeightPanels(const WeightsView& w, const void* weight, DType type, int64_t firstPanel, int64_t lastPanel) {
  for (int64_t panel = firstPanel; panel < lastPanel; ++panel) {
    char* to = w.base + panel * w.panelBytes();
    std::memset(to, 0, size_t(w.panelBytes()));
    packPanel(w.dtype, to, type, elementAt(weight, type, panel * kLanes * w.columns), w.columns,
              lanesLeft(panel * kLanes, w.rows), w.columns);
  }
}

}  // namespace
}  // namespace gqa
