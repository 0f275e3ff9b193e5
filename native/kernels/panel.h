// The one microkernel, behind scores, values and linear layers:
//   C[r][v][lane] = C[r][v][lane] * scale[r] + sum_{l0 <= l < l1} A[r][l] * B[v][l][lane],   accumulated in f32.
// B is a run of panels of 16 lanes (ops.h); A is row-major f32. Rows and panels of a tile stay in registers.
#pragma once

namespace gqa {
namespace {

// How a panel's elements become lanes. kStep contraction steps share a row of 16 lanes.
struct PanelF32 {
  static constexpr int kStep = 1;
  static constexpr int kRowBytes = 64;
  GQA_INLINE static Vec first(const char* row) { return load(reinterpret_cast<const float*>(row)); }
  GQA_INLINE static Vec second(const char* row) { return first(row); }
};
struct PanelF16 {
  static constexpr int kStep = 1;
  static constexpr int kRowBytes = 32;
  GQA_INLINE static Vec first(const char* row) { return loadF16(reinterpret_cast<const uint16_t*>(row)); }
  GQA_INLINE static Vec second(const char* row) { return first(row); }
};
struct PanelBf16 {
  static constexpr int kStep = 2;
  static constexpr int kRowBytes = 64;
  GQA_INLINE static Vec first(const char* row) { return loadBf16Even(reinterpret_cast<const uint16_t*>(row)); }
  GQA_INLINE static Vec second(const char* row) { return loadBf16Odd(reinterpret_cast<const uint16_t*>(row)); }
};

struct PanelArgs {
  const float* a;
  int64_t aStride;
  const char* b;
  int64_t panelBytes;
  int64_t l0, l1;
  float* c;
  int64_t cStride;       // floats between rows; panels are 16 floats apart
  const float* scale;    // [rows], or null where C starts at 0
  int64_t prefetch;      // bytes from each row of B to the one to be prefetched; 0 for none
};

template <int R, int V>
struct Accumulators {
  Vec at[R][V];
};

template <class P, int R, int V, bool kSecond>
GQA_INLINE void accumulate(Accumulators<R, V>& acc, const PanelArgs& t, const char* row, int64_t l) {
  Vec b[V];
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) b[v] = kSecond ? P::second(row + v * t.panelBytes) : P::first(row + v * t.panelBytes);
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
    const Vec a = splat(t.a[r * t.aStride + l]);
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) acc.at[r][v] = fma(a, b[v], acc.at[r][v]);
  }
}

// Its own function, so that every tile's registers are allocated on their own.
template <class P, int R, int V>
GQA_NOINLINE void panelTile(const PanelArgs& t) {
  Accumulators<R, V> acc;
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v)
      acc.at[r][v] = t.scale ? mul(load(t.c + r * t.cStride + v * kLanes), splat(t.scale[r])) : zero();

  int64_t l = t.l0;
  const char* row = t.b + l / P::kStep * P::kRowBytes;
  if (P::kStep == 2 && (l & 1) && l < t.l1) {  // a run that starts inside a pair must not touch the pair's first half
    accumulate<P, R, V, true>(acc, t, row, l);
    row += P::kRowBytes;
    ++l;
  }
  for (; l + P::kStep <= t.l1; l += P::kStep, row += P::kRowBytes) {
    if (t.prefetch)
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) prefetchLine(row + v * t.panelBytes + t.prefetch);
    accumulate<P, R, V, false>(acc, t, row, l);
    if (P::kStep == 2) accumulate<P, R, V, true>(acc, t, row, l + 1);
  }
  if (l < t.l1) accumulate<P, R, V, false>(acc, t, row, l);

#pragma GCC unroll 12
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) store(t.c + r * t.cStride + v * kLanes, acc.at[r][v]);
}

// Panels a tile of R rows takes at once: as many as the registers hold.
constexpr int tilePanels(int rows) {
  return rows * 8 <= kAccumulators ? 8 : rows * 4 <= kAccumulators ? 4 : rows * 2 <= kAccumulators ? 2 : 1;
}

// As many groups of V panels as there are; leaves t and panels at the rest.
template <class P, int R, int V>
GQA_INLINE void panelGroups(PanelArgs& t, int64_t& panels) {
  for (; panels >= V; panels -= V) {
    panelTile<P, R, V>(t);
    t.b += V * t.panelBytes;
    t.c += V * kLanes;
  }
}

template <class P, int R>
void panelRows(PanelArgs t, int64_t panels) {
  constexpr int kMost = tilePanels(R);
  if constexpr (kMost >= 8) panelGroups<P, R, 8>(t, panels);
  if constexpr (kMost >= 4) panelGroups<P, R, 4>(t, panels);
  if constexpr (kMost >= 2) panelGroups<P, R, 2>(t, panels);
  panelGroups<P, R, 1>(t, panels);
}

template <class P>
void panelProduct(const PanelArgs& t, int64_t rows, int64_t panels) {
  switch (rows) {
    case 1: return panelRows<P, 1>(t, panels);
    case 2: return panelRows<P, 2>(t, panels);
    case 3: return panelRows<P, 3>(t, panels);
    case 4: return panelRows<P, 4>(t, panels);
    case 5: return panelRows<P, 5>(t, panels);
    case 6: return panelRows<P, 6>(t, panels);
  }
  if constexpr (kMaxTileRows > 6) switch (rows) {
      case 7: return panelRows<P, 7>(t, panels);
      case 8: return panelRows<P, 8>(t, panels);
      case 9: return panelRows<P, 9>(t, panels);
      case 10: return panelRows<P, 10>(t, panels);
      case 11: return panelRows<P, 11>(t, panels);
      case 12: return panelRows<P, 12>(t, panels);
    }
}

// C[rows][panels * 16] as above; 1 <= rows <= kMaxTileRows.
GQA_INLINE void panelProduct(DType type, const PanelArgs& t, int64_t rows, int64_t panels) {
  if (type == DType::f32) return panelProduct<PanelF32>(t, rows, panels);
  if (type == DType::f16) return panelProduct<PanelF16>(t, rows, panels);
  panelProduct<PanelBf16>(t, rows, panels);
}

}  // namespace
}  // namespace gqa
