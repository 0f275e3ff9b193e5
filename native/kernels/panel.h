// The one microkernel, behind scores, values and linear layers:
//   C[r][v][lane] = start + sum_{l0 <= l < l1} A[r][l] * B[l][v][lane],   accumulated in f32.
// B is a panel (ops.h) or some vectors of its rows; A is row-major, f32 or bf16. A tile's C stays in registers.
#pragma once

namespace gqa {
namespace {

// Rows of A that share the loads of B.
constexpr int kMaxTileRows = 6;

// How a panel's elements become lanes. kStep contraction steps share a row of 16 lanes.
struct PanelF32 {
  static constexpr int kStep = 1, kVectorBytes = 64;
  static constexpr bool kPairsA = false;
  GQA_INLINE static Vec first(const char* row) { return load(reinterpret_cast<const float*>(row)); }
  GQA_INLINE static Vec second(const char* row) { return first(row); }
};
struct PanelF16 {
  static constexpr int kStep = 1, kVectorBytes = 32;
  static constexpr bool kPairsA = false;
  GQA_INLINE static Vec first(const char* row) { return loadF16(reinterpret_cast<const uint16_t*>(row)); }
  GQA_INLINE static Vec second(const char* row) { return first(row); }
};
struct PanelBf16 {
  static constexpr int kStep = 2, kVectorBytes = 64;
  static constexpr bool kPairsA = false;
  GQA_INLINE static Vec first(const char* row) { return loadBf16Even(reinterpret_cast<const uint16_t*>(row)); }
  GQA_INLINE static Vec second(const char* row) { return loadBf16Odd(reinterpret_cast<const uint16_t*>(row)); }
};

// A is in bf16 too: one instruction multiplies its pairs with B's.
struct PanelBf16Pairs {
  static constexpr int kStep = 2, kVectorBytes = 64;
  static constexpr bool kPairsA = true;
};

// Memory to be prefetched while a panel is walked, as large as the panel: its lines in their order, or cut into
// substreams, where what lets a core read at the machine's limit is the number of pages in flight (docs/numerics.md).
// Where several passes walk the panel each fetches its share, so that memory works as evenly as arithmetic.
struct Ahead {
  const char* base;  // null for none
  int64_t bytes;
  Prefetch order;  // of its lines
  int64_t passes = 1, pass = 0;
};

// What C is before the products are added: nothing, itself, or itself times its row's scale.
enum class Start { zero, given, scaled };

struct PanelArgs {
  const void* a;    // f32 or bf16
  int64_t aStride;  // between rows of A, in 4-byte words
  const char* b;
  int64_t rowBytes;  // between rows of B
  int64_t l0, l1;
  float* c;
  int64_t cStride;  // floats between rows of C; its vectors are neighbours
  Start start;
  const float* scale;  // [rows], where C starts scaled
  Ahead ahead;
  bool pairs = false;  // A is bf16, as B is, and l0 and l1 are even; else it is f32
};

// Two for every line of a row.
GQA_INLINE int64_t substreamBytes(const PanelArgs& t) {
  return !t.ahead.base || t.rowBytes < 64 ? 0 : t.ahead.bytes / (t.rowBytes / 32);
}

template <int R, int V>
struct Accumulators {
  Vec at[R][V];
};

// Steps l and l + 1 of a bf16 A.
template <class P, int R, int V>
GQA_INLINE void accumulatePairs(Accumulators<R, V>& acc, const PanelArgs& t, const char* row, int64_t l) {
  IVec b[V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) b[v] = loadI(row + v * P::kVectorBytes);
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
    const IVec a = splatI(static_cast<const int32_t*>(t.a)[r * t.aStride + l / 2]);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) acc.at[r][v] = dotBf16(acc.at[r][v], a, b[v]);
  }
}

template <class P, int R, int V, bool kSecond>
GQA_INLINE void accumulate(Accumulators<R, V>& acc, const PanelArgs& t, const char* row, int64_t l) {
  Vec b[V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v)
    b[v] = kSecond ? P::second(row + v * P::kVectorBytes) : P::first(row + v * P::kVectorBytes);
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
    const Vec a = splat(static_cast<const float*>(t.a)[r * t.aStride + l]);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) acc.at[r][v] = fma(a, b[v], acc.at[r][v]);
  }
}

// V vectors of C from vector `first` of the rows of B on. Its own function, so that every tile's registers are
// allocated on their own; the arguments are shared by all tiles, because copies of what was just written stall the
// pipeline.
template <class P, int R, int V>
GQA_NOINLINE void panelTile(const PanelArgs& t, int64_t first) {
  float* c = t.c + first * kLanes;
  Accumulators<R, V> acc;
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      const float* from = c + r * t.cStride + v * kLanes;
      acc.at[r][v] = t.start == Start::zero ? zero() : t.scale ? mul(load(from), splat(t.scale[r])) : load(from);
    }

  int64_t l = t.l0;
  const char* row = t.b + l / P::kStep * t.rowBytes + first * P::kVectorBytes;
  if constexpr (P::kStep == 2 && !P::kPairsA)
    if ((l & 1) && l < t.l1) {  // a run that starts inside a pair must not touch the pair's first half
      accumulate<P, R, V, true>(acc, t, row, l);
      row += t.rowBytes;
      ++l;
    }
  // Substreams: successive lines of a pair of rows go to one each, all of which move on by a line every two rows.
  constexpr int kLineVectors = 64 / P::kVectorBytes, kLines = (V + kLineVectors - 1) / kLineVectors;
  const bool pages = t.ahead.order == Prefetch::pages;
  const int64_t substream = substreamBytes(t), column = first / kLineVectors;
  const int64_t apart = pages ? substream : 64, later = pages ? 64 : 2 * kLines * 64;
  const bool fetches = t.ahead.base && first % kLineVectors == 0;
  const char* ahead = fetches ? t.ahead.base + column * substream * (pages ? 1 : 2) : nullptr;
  const char* other = ahead ? ahead + (pages ? t.rowBytes / 64 * substream : kLines * 64) : nullptr;
  int64_t wait = t.ahead.pass;
  for (; l + P::kStep <= t.l1; l += P::kStep, row += t.rowBytes) {
    if (ahead) {
      if (wait == 0) {
#pragma GCC unroll 4
        for (int v = 0; v < V; v += kLineVectors) prefetchLine(ahead + v / kLineVectors * apart);
        wait = t.ahead.passes;
      }
      --wait;
      const char* next = other;
      other = ahead + later;
      ahead = next;
    }
    if constexpr (P::kPairsA) {
      accumulatePairs<P>(acc, t, row, l);
    } else {
      accumulate<P, R, V, false>(acc, t, row, l);
      if (P::kStep == 2) accumulate<P, R, V, true>(acc, t, row, l + 1);
    }
  }
  if constexpr (!P::kPairsA)
    if (l < t.l1) accumulate<P, R, V, false>(acc, t, row, l);

#pragma GCC unroll 6
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(c + r * t.cStride + v * kLanes, acc.at[r][v]);
}

// As many vectors at once as the registers hold accumulators for.
constexpr int tileVectors(int rows) { return rows * 4 <= kAccumulators ? 4 : kAccumulators / rows; }

template <class P, int R>
GQA_INLINE void panelRows(const PanelArgs& t, int64_t vectors) {
  constexpr int kMost = tileVectors(R);
  int64_t v = 0;
  for (; v + kMost <= vectors; v += kMost) panelTile<P, R, kMost>(t, v);
  if constexpr (kMost > 1)
    if (vectors - v == 1) panelTile<P, R, 1>(t, v);
  if constexpr (kMost > 2)
    if (vectors - v == 2) panelTile<P, R, 2>(t, v);
  if constexpr (kMost > 3)
    if (vectors - v == 3) panelTile<P, R, 3>(t, v);
}

template <class P>
void panelProduct(const PanelArgs& t, int64_t rows, int64_t vectors) {
  switch (rows) {
    case 1:
      return panelRows<P, 1>(t, vectors);
    case 2:
      return panelRows<P, 2>(t, vectors);
    case 3:
      return panelRows<P, 3>(t, vectors);
    case 4:
      return panelRows<P, 4>(t, vectors);
    case 5:
      return panelRows<P, 5>(t, vectors);
    default:
      return panelRows<P, 6>(t, vectors);
  }
}

// C[rows][vectors * 16] as above, within one panel; 1 <= rows <= kMaxTileRows.
GQA_INLINE void panelProduct(DType type, const PanelArgs& t, int64_t rows, int64_t vectors) {
  if constexpr (kDotBf16)
    if (t.pairs) return panelProduct<PanelBf16Pairs>(t, rows, vectors);
  if (type == DType::f32) return panelProduct<PanelF32>(t, rows, vectors);
  if (type == DType::f16) return panelProduct<PanelF16>(t, rows, vectors);
  panelProduct<PanelBf16>(t, rows, vectors);
}

// The same over vectors [first, last) of a layout, panel by panel; `first` is the start of a panel, and t.ahead.base
// the start of a layout of the same shape.
GQA_INLINE void panelsProduct(const PanelLayout& layout, const char* base, PanelArgs t, int64_t rows, int64_t first,
                              int64_t last) {
  const char* ahead = t.ahead.base;
  for (int64_t v = first; v < last; v += kPanelLanes / kLanes) {
    t.b = base + layout.vectorOffset(v);
    t.rowBytes = layout.rowBytes(v);
    t.ahead.base = ahead ? ahead + layout.vectorOffset(v) : nullptr;
    t.ahead.bytes = layout.rows() * t.rowBytes;
    panelProduct(layout.dtype, t, rows, last - v < layout.rowVectors(v) ? last - v : layout.rowVectors(v));
    t.c += kPanelLanes;
  }
}

}  // namespace
}  // namespace gqa
