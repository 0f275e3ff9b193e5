// The two products of few rows with a quantised block (quantise.h), in integers, so that K and V are only taken apart,
// never widened:
//   S[r][j] = sum_groups step_r,group (d_j sum q k + m_j sum q),    q whole numbers of the step: 16 bits against q8_0,
//                                                                   8 against q4_1, whose own step is far coarser
//   O[r][:] = O f_r + step_r,group sum p16 v + sum p m,             p16 = round(p d / step)
// Sums of a group, and of a block's tokens, are exact: 32 * 127 * 32767 and 64 * 127 * 32767 are below 2^31.
#pragma once

namespace gqa {
namespace {

constexpr float kMost16 = 32767.f;

// The numbers of a query: 32-bit words of a group of 32, words that meet one word of K.
constexpr int64_t queryGroupWords(DType storage) { return storage == DType::q8_0 ? kGroup / 2 : kGroup / 4; }
constexpr int kQueryPieces = 2;

// A query row: per group its words, in the order in which keyPiece() takes K apart, then the groups' steps, then the
// groups' sums times their steps.
GQA_INLINE int64_t integerQueryStride(DType storage, int64_t headDim) {
  return roundUp(roundUp(headDim, kGroup) / kGroup * (queryGroupWords(storage) + 2), kLanes);
}

// Piece n of 2 of a word of K: 16-bit numbers, bytes (0, 2) or (1, 3), of q8_0; bytes, low or high nibbles, of q4_1.
template <DType T>
GQA_INLINE IVec keyPiece(IVec word, int n) {
  if (T == DType::q8_0) return n == 0 ? evenBytes(word) : oddBytes(word);
  return n == 0 ? lowNibbles(word) : highNibbles(word);
}
template <DType T>
GQA_INLINE IVec dotKeys(IVec sum, IVec piece, IVec query) {
  return T == DType::q8_0 ? dotPairs(sum, piece, query) : dotBytes(sum, piece, query);
}

// Pair n of a word of V as 16-bit numbers: bytes (n, n + 2), nibbles (n, n + 4).
template <DType T>
GQA_INLINE IVec valuePairs(IVec word, int n) {
  if (T == DType::q8_0) return n == 0 ? evenBytes(word) : oddBytes(word);
  if (n < 2) return n == 0 ? nibblePairs<0>(word) : nibblePairs<1>(word);
  return n == 2 ? nibblePairs<2>(word) : nibblePairs<3>(word);
}

// NaN where a lane is NaN or infinite, else 0.
GQA_INLINE float notFinite(Vec sum) { return reduceAdd(mul(sum, zero())); }

// The numbers of a group in the order of keyPiece<q8_0>: of four, the middle two change places.
GQA_INLINE void storeQueryPairs(int16_t* to, Vec a, Vec b) {
  int16_t numbers[kGroup];
  storeI16(numbers, a);
  storeI16(numbers + kLanes, b);
  for (int i = 0; i < kGroup; i += 4) {
    const int16_t four[4] = {numbers[i], numbers[i + 2], numbers[i + 1], numbers[i + 3]};
    std::memcpy(to + i, four, sizeof four);
  }
}

// query[row] from q[headDim] times `scale`.
GQA_INLINE void packIntegerQuery(DType storage, DType from, const char* q, int64_t headDim, float scale, float* query) {
  const int64_t groups = roundUp(headDim, kGroup) / kGroup;
  const float most = storage == DType::q8_0 ? kMost16 : 127.f;
  float* steps = query + groups * queryGroupWords(storage);
  for (int64_t g = 0; g < groups; ++g, query += queryGroupWords(storage)) {
    const int64_t d = g * kGroup, left = headDim - d;
    const Vec a = loadAs(from, elementAt(q, from, d), left < kLanes ? left : kLanes);
    const Vec b = left > kLanes ? loadAs(from, elementAt(q, from, d + kLanes), lanesLeft(d + kLanes, headDim)) : zero();
    const float highest = reduceMax(max(max(a, sub(zero(), a)), max(b, sub(zero(), b))));
    const Vec inverse = splat(highest > 0 ? most / highest : 0.f);
    const Vec x = roundEven(mul(a, inverse)), y = roundEven(mul(b, inverse));
    if (storage == DType::q8_0) {
      storeQueryPairs(reinterpret_cast<int16_t*>(query), x, y);
    } else {
      storeI8(reinterpret_cast<int8_t*>(query), x);
      storeI8(reinterpret_cast<int8_t*>(query) + kLanes, y);
    }
    steps[g] = highest / most * scale + notFinite(add(mul(a, zero()), mul(b, zero())));
    steps[groups + g] = steps[g] * reduceAdd(add(x, y));
  }
}

// Fetches a part of the next block line by line in four substreams: pages in flight (docs/numerics.md). Spread over the
// rows of a product, so that the lines asked for never wait for each other. A null base fetches `idle`, which is at
// hand, over and over: cheaper than a branch.
class Fetch {
 public:
  GQA_INLINE Fetch(const char* base, int64_t bytes, const char* idle)
      : line_(base ? base : idle), substream_(base ? (bytes + 255) / 256 * 64 : 0), end_(line_ + substream_) {}
  GQA_INLINE void step() {
    for (int s = 0; s < 4; ++s) prefetchLine(line_ + s * substream_);
    line_ += substream_ ? 64 : 0;
  }
  GQA_INLINE void rest() {
    while (line_ < end_) step();
  }

 private:
  const char* line_;
  int64_t substream_;
  const char* end_;
};

struct IntegerArgs {
  const float* a;  // rows of words
  int64_t aStride;
  const char* b;  // the first vector's first row
  int64_t rowBytes;
  float* c;
  int64_t cStride;
  // Scores: groups, from one to the next, from a group to its scales, from scales to minimums.
  int64_t groups, chunkBytes, scales, minimums;
  // Values: rows of words, and per 32 lanes a copy of the words and the steps, [rows].
  int64_t rows, aGroup;
  const float *factors, *steps;
  int64_t stepStride;
  const char* ahead;  // the same part of the next block, null for none
  int64_t aheadBytes;
};

template <int R, int V>
GQA_INLINE void clearSums(IVec (&sums)[R][V]) {
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sums[r][v] = zeroI();
}

GQA_INLINE IVec splatWord(const float* a) {
  int32_t word;
  std::memcpy(&word, a, 4);
  return splatI(word);
}

// c = the group's sums, scaled, added to c but for the first group.
template <DType T, int R, int V, bool kFirst>
GQA_INLINE void addGroup(const IVec (&sums)[R][V], const char* scales, int64_t minimums, const float* steps,
                         int64_t aStride, int64_t groups, float* c, int64_t cStride) {
  Vec d[V], m[V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) {
    const uint16_t* halves = reinterpret_cast<const uint16_t*>(scales + v * 32);
    d[v] = loadF16(halves);
    if (T == DType::q4_1) m[v] = loadF16(halves + minimums);
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r, steps += aStride, c += cStride) {
    const Vec step = splat(steps[0]), sum = T == DType::q4_1 ? splat(steps[groups]) : zero();
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      const Vec s = mul(toFloat(sums[r][v]), step);
      const Vec total = kFirst ? mul(s, d[v]) : fma(s, d[v], load(c + v * kLanes));
      store(c + v * kLanes, T == DType::q4_1 ? fma(m[v], sum, total) : total);
    }
  }
}

// V vectors from vector `first` on.
template <DType T, int R, int V>
GQA_NOINLINE void integerScoreTile(const IntegerArgs& t, int64_t first) {
  constexpr int kRows = int(kGroup / panelStep(T));
  const int64_t aStride = t.aStride, rowBytes = t.rowBytes, groups = t.groups, scales = t.scales - first * 32;
  const char* chunk = t.b + first * 64;
  const float* a = t.a;
  const float* steps = a + groups * queryGroupWords(T);
  float* c = t.c + first * kLanes;
  Fetch fetch(first == 0 ? t.ahead : nullptr, t.aheadBytes, chunk);
  for (int64_t g = 0; g < groups; ++g, chunk += t.chunkBytes, a += queryGroupWords(T)) {
    IVec sums[R][V];
    clearSums(sums);
    const char* at = chunk;
#pragma GCC unroll 4
    for (int row = 0; row < kRows; ++row, at += rowBytes) {
      fetch.step();
      IVec words[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) words[v] = loadI(at + v * 64);
#pragma GCC unroll 2
      for (int n = 0; n < kQueryPieces; ++n) {
        IVec pieces[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) pieces[v] = keyPiece<T>(words[v], n);
#pragma GCC unroll 6
        for (int r = 0; r < R; ++r) {
          const IVec q = splatWord(a + r * aStride + row * kQueryPieces + n);
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v) sums[r][v] = dotKeys<T>(sums[r][v], pieces[v], q);
        }
      }
    }
    if (g == 0)
      addGroup<T, R, V, true>(sums, chunk + scales, t.minimums, steps, aStride, groups, c, t.cStride);
    else
      addGroup<T, R, V, false>(sums, chunk + scales, t.minimums, steps + g, aStride, groups, c, t.cStride);
  }
  fetch.rest();
}

// Words of one row of V, pair n: they meet the weights of the 32 lanes they belong to.
template <DType T, int R, int V>
GQA_INLINE void addPairs(IVec (&sums)[R][V], const IntegerArgs& t, const float* a, const char* row, int n) {
  IVec pairs[V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) pairs[v] = valuePairs<T>(loadI(row + v * 64), n);
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
      sums[r][v] = dotPairs(sums[r][v], pairs[v], splatWord(a + r * t.aStride + v / 2 * t.aGroup));
  }
}

template <DType T, int R, int V>
GQA_NOINLINE void integerValueTile(const IntegerArgs& t, int64_t first) {
  constexpr int kPairs = int(panelStep(T)) / 2;
  IVec sums[R][V];
  clearSums(sums);
  const char* row = t.b + first * 64;
  const float* a = t.a + first / 2 * t.aGroup;
  const int64_t rows = t.rows, rowBytes = t.rowBytes;
  Fetch fetch(first == 0 ? t.ahead : nullptr, t.aheadBytes, row);
  for (int64_t i = 0; i < rows; ++i, row += rowBytes) {
    fetch.step();
#pragma GCC unroll 4
    for (int n = 0; n < kPairs; ++n) addPairs<T>(sums, t, a + i * kPairs + n, row, n);
  }
  fetch.rest();
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      float* c = t.c + r * t.cStride + (first + v) * kLanes;
      const int64_t at = (first + v) / 2 * t.stepStride + r;
      const Vec o = t.factors ? mul(load(c), splat(t.factors[r])) : load(c);
      store(c, fma(toFloat(sums[r][v]), splat(t.steps[at]), o));
    }
}

// Vectors a tile of that many rows takes at once: a whole row of a panel where the registers hold its sums.
constexpr int integerVectors(int rows) { return rows * 4 <= kAccumulators ? 4 : rows * 2 <= kAccumulators ? 2 : 1; }

template <DType T, int R, int V, bool kScores>
GQA_INLINE void integerTile(const IntegerArgs& t, int64_t first) {
  if constexpr (kScores)
    integerScoreTile<T, R, V>(t, first);
  else
    integerValueTile<T, R, V>(t, first);
}

// C[R][vectors * 16]; vector v of a panel takes its words and steps from those of its 32 lanes.
template <DType T, int R, bool kScores>
GQA_INLINE void integerRows(const IntegerArgs& t, int64_t vectors) {
  constexpr int kMost = integerVectors(R);
  int64_t v = 0;
  for (; v + kMost <= vectors; v += kMost) integerTile<T, R, kMost, kScores>(t, v);
  if constexpr (kMost > 2)
    if (v + 2 <= vectors) integerTile<T, R, 2, kScores>(t, v), v += 2;
  if constexpr (kMost > 1)
    if (v < vectors) integerTile<T, R, 1, kScores>(t, v);
}

template <DType T, bool kScores>
void integerProduct(const IntegerArgs& t, int64_t rows, int64_t vectors) {
  switch (rows) {
    case 1:
      return integerRows<T, 1, kScores>(t, vectors);
    case 2:
      return integerRows<T, 2, kScores>(t, vectors);
    case 3:
      return integerRows<T, 3, kScores>(t, vectors);
    case 4:
      return integerRows<T, 4, kScores>(t, vectors);
    case 5:
      return integerRows<T, 5, kScores>(t, vectors);
    default:
      return integerRows<T, 6, kScores>(t, vectors);
  }
}

template <bool kScores>
GQA_INLINE void integerProduct(DType type, const IntegerArgs& t, int64_t rows, int64_t vectors) {
  if (type == DType::q8_0) return integerProduct<DType::q8_0, kScores>(t, rows, vectors);
  integerProduct<DType::q4_1, kScores>(t, rows, vectors);
}

}  // namespace
}  // namespace gqa
