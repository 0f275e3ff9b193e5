// The two products of few rows with a quantised block (quantise.h), in integers. Queries and weights become 16-bit
// numbers, so that K and V are only taken apart into pairs, never widened:
//   S[r][j] = step_r sum_groups (d_j sum q16 k + m_j sum q16)
//   O[r][:] = O f_r + step_r,group sum p16 v + sum p m,      p16 = round(p d / step)
// Sums of a group, and of a block's tokens, are exact: 32 * 127 * 32767 and 64 * 127 * 32767 are below 2^31.
#pragma once

namespace gqa {
namespace {

constexpr float kMost16 = 32767.f;
// 32-bit words of a group of 32 16-bit numbers.
constexpr int64_t kGroupWords = kGroup / 2;

// A query row: per group its words in the order of integerPairs, then the step, then per group the sum of its numbers.
GQA_INLINE int64_t integerQueryStride(int64_t headDim) {
  return roundUp(roundUp(headDim, kGroup) / kGroup * (kGroupWords + 1) + 1, kLanes);
}

// Pair n of a word's pieces as 16-bit numbers: bytes (n, n + 2), nibbles (n, n + 4).
template <DType T>
GQA_INLINE IVec integerPairs(const char* word, int n) {
  const IVec x = loadI(word);
  if (T == DType::q8_0) return n == 0 ? evenBytes(x) : oddBytes(x);
  if (n < 2) return n == 0 ? nibblePairs<0>(x) : nibblePairs<1>(x);
  return n == 2 ? nibblePairs<2>(x) : nibblePairs<3>(x);
}

// NaN where a lane is NaN or infinite, else 0.
GQA_INLINE float notFinite(Vec sum) { return reduceAdd(mul(sum, zero())); }

// query[row] from q[headDim] times `scale`.
GQA_INLINE void packIntegerQuery(DType storage, DType from, const char* q, int64_t headDim, float scale, float* query) {
  const int64_t groups = roundUp(headDim, kGroup) / kGroup, k = panelStep(storage);
  Vec highest = zero(), sum = zero();
  for (int64_t d = 0; d < headDim; d += kLanes) {
    const Vec x = loadAs(from, elementAt(q, from, d), lanesLeft(d, headDim));
    highest = max(max(x, sub(zero(), x)), highest);
    sum = add(sum, mul(x, zero()));
  }
  const float most = reduceMax(highest);
  const Vec inverse = splat(most > 0 ? kMost16 / most : 0.f);
  query[groups * kGroupWords] = most / kMost16 * scale + reduceAdd(sum);
  for (int64_t g = 0; g < groups; ++g) {
    int16_t steps[kGroup] = {0}, words[kGroup];
    for (int64_t d = g * kGroup; d < (g + 1) * kGroup && d < headDim; d += kLanes)
      storeI16(steps + d % kGroup, mul(loadAs(from, elementAt(q, from, d), lanesLeft(d, headDim)), inverse));
    float total = 0;
    for (int64_t i = 0; i < kGroup; ++i) {
      const int64_t word = i / 2, row = word / (k / 2), piece = word % (k / 2) + i % 2 * (k / 2);
      words[i] = steps[row * k + keyStepOf(storage, piece)];
      total += float(words[i]);
    }
    std::memcpy(query + g * kGroupWords, words, sizeof words);
    query[groups * kGroupWords + 1 + g] = total;
  }
}

// Lines of the next block, a quarter of it after each other: pages in flight (docs/numerics.md).
GQA_INLINE void prefetchPart(const char* next, int64_t bytes, int64_t part, int64_t parts) {
  constexpr int64_t kSubstreams = 4;
  const int64_t lines = (bytes + 64 * kSubstreams - 1) / 64 / kSubstreams;
  for (int64_t i = lines * part / parts; i < lines * (part + 1) / parts; ++i)
    for (int64_t s = 0; s < kSubstreams; ++s) prefetchLine(next + (s * lines + i) * 64);
}

struct IntegerArgs {
  const float* a;  // rows of words
  int64_t aStride;
  const char* b;  // the first vector's first row
  int64_t rowBytes;
  float* c;
  int64_t cStride;
  // Scores: groups, from one to the next, from a group to its scales, from scales to minimums.
  int64_t groups, chunkBytes, scales, minimums;
  // Values: rows of words, and per 32 lanes a copy of the words, the steps and what the minimums add, [rows].
  int64_t rows, aGroup;
  const float *factors, *steps, *constants;
  int64_t stepStride;
  const char* ahead;  // the same part of the next block, null for none
  int64_t aheadBytes;
};

template <DType T, int R, int V>
GQA_INLINE void addPairs(IVec (&sums)[R][V], const IntegerArgs& t, const float* a, const char* row, int n) {
  IVec pairs[V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) pairs[v] = integerPairs<T>(row + v * 64, n);
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      int32_t word;
      std::memcpy(&word, a + r * t.aStride + v / 2 * t.aGroup, 4);
      sums[r][v] = dotPairs(sums[r][v], pairs[v], splatI(word));
    }
  }
}

template <int R, int V>
GQA_INLINE void clearSums(IVec (&sums)[R][V]) {
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sums[r][v] = zeroI();
}

template <DType T, int R, int V>
GQA_NOINLINE void integerScoreTile(const IntegerArgs& t) {
  constexpr int kPairs = int(panelStep(T)) / 2, kRows = int(kGroup) / int(panelStep(T));
  IVec sums[R][V];
  const char* chunk = t.b;
  for (int64_t g = 0; g < t.groups; ++g, chunk += t.chunkBytes) {
    clearSums(sums);
    if (t.ahead) prefetchPart(t.ahead, t.aheadBytes, g, t.groups);
#pragma GCC unroll 2
    for (int row = 0; row < kRows; ++row)
#pragma GCC unroll 4
      for (int n = 0; n < kPairs; ++n)
        addPairs<T>(sums, t, t.a + g * kGroupWords + row * kPairs + n, chunk + row * t.rowBytes, n);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      const uint16_t* scales = reinterpret_cast<const uint16_t*>(chunk + t.scales + v * 32);
      const Vec d = loadF16(scales), m = T == DType::q4_1 ? loadF16(scales + t.minimums) : zero();
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) {
        const float* extra = t.a + r * t.aStride + t.groups * kGroupWords;
        float* c = t.c + r * t.cStride + v * kLanes;
        Vec s = mul(toFloat(sums[r][v]), d);
        if (T == DType::q4_1) s = fma(m, splat(extra[1 + g]), s);
        if (g > 0) s = add(s, load(c));
        store(c, g + 1 == t.groups ? mul(s, splat(extra[0])) : s);
      }
    }
  }
}

template <DType T, int R, int V>
GQA_NOINLINE void integerValueTile(const IntegerArgs& t) {
  constexpr int kPairs = int(panelStep(T)) / 2;
  IVec sums[R][V];
  clearSums(sums);
  const char* row = t.b;
  for (int64_t i = 0; i < t.rows; ++i, row += t.rowBytes) {
    if (t.ahead) prefetchPart(t.ahead, t.aheadBytes, i, t.rows);
#pragma GCC unroll 4
    for (int n = 0; n < kPairs; ++n) addPairs<T>(sums, t, t.a + i * kPairs + n, row, n);
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      float* c = t.c + r * t.cStride + v * kLanes;
      const int64_t at = v / 2 * t.stepStride + r;
      Vec o = t.factors ? mul(load(c), splat(t.factors[r])) : load(c);
      if (T == DType::q4_1) o = add(o, splat(t.constants[at]));
      store(c, fma(toFloat(sums[r][v]), splat(t.steps[at]), o));
    }
}

// Vectors a tile of that many rows takes at once: a whole row of a panel where the registers hold its sums.
constexpr int integerVectors(int rows) { return rows * 4 <= kAccumulators ? 4 : rows * 2 <= kAccumulators ? 2 : 1; }

template <DType T, int R, bool kScores>
GQA_INLINE int64_t integerStep(const IntegerArgs& t, int64_t left) {
  constexpr int kMost = integerVectors(R);
  if constexpr (kMost == 4)
    if (left >= 4) return kScores ? integerScoreTile<T, R, 4>(t) : integerValueTile<T, R, 4>(t), 4;
  if constexpr (kMost >= 2)
    if (left >= 2) return kScores ? integerScoreTile<T, R, 2>(t) : integerValueTile<T, R, 2>(t), 2;
  return kScores ? integerScoreTile<T, R, 1>(t) : integerValueTile<T, R, 1>(t), 1;
}

// C[R][vectors * 16]; vector v of a panel takes its words, steps and constants from those of its 32 lanes.
template <DType T, int R, bool kScores>
GQA_INLINE void integerRows(IntegerArgs t, int64_t vectors) {
  const IntegerArgs whole = t;
  for (int64_t v = 0, n; v < vectors; v += n) {
    n = integerStep<T, R, kScores>(t, vectors - v);
    const int64_t done = v + n, group = done / 2;
    t.b = whole.b + done * 64;
    t.scales = whole.scales - done * 32;
    t.c = whole.c + done * kLanes;
    t.a = whole.a + group * whole.aGroup;
    t.steps = whole.steps + group * whole.stepStride;
    t.constants = whole.constants + group * whole.stepStride;
    t.ahead = nullptr;
  }
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
