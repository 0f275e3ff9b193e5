// The microkernel of rounded activations: C[r][v][lane] = sum_l x[r][l] W[l][v][lane], products of bytes exact in
// 32-bit integers per group of 32 steps, groups summed in f32; products of bf16 pairs summed in f32. x comes in tiles
// (activations.h), W is a panel (layout.h).
#pragma once

namespace gqa {
namespace {

struct DotArgs {
  const int32_t* x;    // the tile's words, [..][R]
  const char* w;       // the first row of the first vector
  int64_t rowBytes;    // between rows of W
  int64_t chunkBytes;  // quantised: between groups
  int64_t scales;      // quantised: from w to its scales
  int64_t minimums;    // from scales to minimums
  int64_t steps;       // groups, or pairs
  float* c;            // [R][kPanelLanes]
  bool first;          // pass over these weights, which waits for memory
};

// How the words of a quantised row become bytes: kZero is what their value is offset by.
struct BytesQ8 {
  static constexpr int kRows = 8, kHalves = 1;
  static constexpr int32_t kZero = kByteOffset;
  static constexpr bool kMinimum = false;
  GQA_INLINE static IVec bytes(IVec word, int) { return kByteOffset ? flipSigns(word) : word; }
};
struct BytesQ40 {
  static constexpr int kRows = 4, kHalves = 2;
  static constexpr int32_t kZero = 8;
  static constexpr bool kMinimum = false;
  GQA_INLINE static IVec bytes(IVec word, int half) { return half ? highNibbles(word) : lowNibbles(word); }
};
struct BytesQ41 {
  static constexpr int kRows = 4, kHalves = 2;
  static constexpr int32_t kZero = 0;
  static constexpr bool kMinimum = true;
  GQA_INLINE static IVec bytes(IVec word, int half) { return BytesQ40::bytes(word, half); }
};

GQA_INLINE float floatAt(const int32_t* words) {
  float x;
  std::memcpy(&x, words, 4);
  return x;
}

GQA_INLINE Vec halvesAt(const char* p) { return loadF16(reinterpret_cast<const uint16_t*>(p)); }

// One group: integer sums over its 32 steps, then scaled into acc.
template <class W, int R, int V>
GQA_INLINE void groupDots(Accumulators<R, V>& acc, const int32_t* x, const char* w, const DotArgs& t) {
  constexpr int kWords = kGroup / 4;
  IVec sums[R][V];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
    const IVec start = W::kZero ? splatI(-W::kZero * x[(kWords + 1) * R + r]) : zeroI();
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sums[r][v] = start;
  }
#pragma GCC unroll 8
  for (int row = 0; row < W::kRows; ++row) {
#pragma GCC unroll 2
    for (int half = 0; half < W::kHalves; ++half) {
      IVec bytes[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) bytes[v] = W::bytes(loadI(w + row * t.rowBytes + v * 64), half);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) {
        const IVec a = splatI(x[(row * W::kHalves + half) * R + r]);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sums[r][v] = dotBytes(sums[r][v], bytes[v], a);
      }
    }
  }
  const char* scales = w + t.scales;
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) {
    const Vec scale = halvesAt(scales + v * 32);
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r)
      acc.at[r][v] = fma(mul(toFloat(sums[r][v]), splat(floatAt(x + kWords * R + r))), scale, acc.at[r][v]);
    if (W::kMinimum) {
      const Vec minimum = halvesAt(scales + t.minimums + v * 32);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) acc.at[r][v] = fma(minimum, splat(floatAt(x + (kWords + 2) * R + r)), acc.at[r][v]);
    }
  }
}

template <int R, int V>
GQA_INLINE void storeTile(const Accumulators<R, V>& acc, float* c) {
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(c + r * kPanelLanes + v * kLanes, acc.at[r][v]);
}

template <int R, int V>
GQA_INLINE void clearTile(Accumulators<R, V>& acc) {
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) acc.at[r][v] = zero();
}

// The first pass over weights waits for memory and fetches what it comes to soon; further ones find it in a cache. Far
// ahead does worse: at 8 rows of fast Q8_0 the next panel, a share of it in every pass, costs 1.4 times as much.
constexpr int64_t kChunksAhead = 3;
constexpr int64_t kRowsAhead = 16;

template <class W, int V>
GQA_INLINE void prefetchChunk(const char* chunk, const DotArgs& t) {
#pragma GCC unroll 8
  for (int row = 0; row < W::kRows; ++row)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) prefetchLine(chunk + row * t.rowBytes + v * 64);
  prefetchLine(chunk + t.scales);
}

template <class W, int R, int V>
GQA_NOINLINE void byteTile(const DotArgs& t) {
  Accumulators<R, V> acc;
  clearTile(acc);
  const int32_t* x = t.x;
  const char* w = t.w;
  for (int64_t g = 0; g < t.steps; ++g, x += kActivationGroupWords * R, w += t.chunkBytes) {
    if (t.first) prefetchChunk<W, V>(w + kChunksAhead * t.chunkBytes, t);
    groupDots<W>(acc, x, w, t);
  }
  storeTile(acc, t.c);
}

struct PairsBf16 {};

template <class W, int R, int V>
GQA_NOINLINE void pairTile(const DotArgs& t) {
  Accumulators<R, V> acc;
  clearTile(acc);
  const int32_t* x = t.x;
  const char* w = t.w;
  for (int64_t l = 0; l < t.steps; ++l, x += R, w += t.rowBytes) {
    IVec pairs[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) pairs[v] = loadI(w + v * 64);
    if (t.first) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) prefetchLine(w + kRowsAhead * t.rowBytes + v * 64);
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      const IVec a = splatI(x[r]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc.at[r][v] = dotBf16(acc.at[r][v], pairs[v], a);
    }
  }
  storeTile(acc, t.c);
}

template <class W, int R, int V>
GQA_INLINE void dotTile(const DotArgs& t) {
  if constexpr (std::is_same<W, PairsBf16>::value)
    pairTile<W, R, V>(t);
  else
    byteTile<W, R, V>(t);
}

// Bytes need two accumulators for every sum.
template <class W>
constexpr int dotVectors(int rows) {
  const int sums = std::is_same<W, PairsBf16>::value ? kAccumulators : kAccumulators / 2;
  return rows >= sums ? 1 : sums / rows >= 4 ? 4 : sums / rows;
}

template <class W, int R>
GQA_INLINE void dotRows(DotArgs t, int64_t vectors) {
  constexpr int kMost = dotVectors<W>(R);
  for (int64_t done = 0; done < vectors; done += kMost) {
    const int64_t left = vectors - done;
    if (left >= kMost) {
      dotTile<W, R, kMost>(t);
    } else {
      if constexpr (kMost > 1)
        if (left == 1) dotTile<W, R, 1>(t);
      if constexpr (kMost > 2)
        if (left == 2) dotTile<W, R, 2>(t);
      if constexpr (kMost > 3)
        if (left == 3) dotTile<W, R, 3>(t);
    }
    t.w += kMost * 64;
    t.scales += kMost * (32 - 64);
    t.c += kMost * kLanes;
  }
}

template <class W>
void dotProduct(const DotArgs& t, int64_t rows, int64_t vectors) {
  switch (rows) {
    case 1:
      return dotRows<W, 1>(t, vectors);
    case 2:
      return dotRows<W, 2>(t, vectors);
    case 3:
      return dotRows<W, 3>(t, vectors);
    case 4:
      return dotRows<W, 4>(t, vectors);
    case 5:
      return dotRows<W, 5>(t, vectors);
    default:
      return dotRows<W, 6>(t, vectors);
  }
}

// C[rows][kPanelLanes] as above for `vectors` vectors of one panel, 1 <= rows <= kTileTokens.
GQA_INLINE void dotProduct(DType type, const DotArgs& t, int64_t rows, int64_t vectors) {
  if (type == DType::bf16) return dotProduct<PairsBf16>(t, rows, vectors);
  if (type == DType::q8_0) return dotProduct<BytesQ8>(t, rows, vectors);
  if (type == DType::q4_0) return dotProduct<BytesQ40>(t, rows, vectors);
  dotProduct<BytesQ41>(t, rows, vectors);
}

}  // namespace
}  // namespace gqa
