// The two products of few rows with a quantised block (quantise.h), in integers, so that K and V are only taken apart,
// never widened:
//   S[r][j] = shift_r + sum_runs step_r,run sum n c_j,        n the query in whole numbers of the step
//   (integer_query.h) O[r][:] = O f_r + step_r,group sum w v + sum p m,         w = p d in whole numbers of the step,
//   16 and 8 bits
// Sums of a run, and of a block's tokens, are exact in 32 bits.
#pragma once

namespace gqa {
namespace {

// Piece n of a stored word: 16-bit numbers, bytes (0, 2) or (1, 3), of q8_0, in K unsigned; bytes, low or high nibbles,
// of q4_1.
template <DType T>
GQA_INLINE IVec keyDigits(IVec word, int n) {
  if (T == DType::q8_0) return n == 0 ? evenUnsigned(word) : oddUnsigned(word);
  return n == 0 ? lowNibbles(word) : highNibbles(word);
}
template <DType T>
GQA_INLINE IVec valueDigits(IVec word, int n) {
  if (T == DType::q8_0) return n == 0 ? evenBytes(word) : oddBytes(word);
  return n == 0 ? lowNibbles(word) : highNibbles(word);
}
template <DType T>
GQA_INLINE IVec dotKeys(IVec sum, IVec piece, IVec query) {
  return T == DType::q8_0 ? dotPairs(sum, piece, query) : dotNibblesSigned(sum, piece, query);
}
template <DType T>
GQA_INLINE IVec dotValues(IVec sum, IVec piece, IVec weights) {
  return T == DType::q8_0 ? dotPairs(sum, piece, weights) : dotNibblesUnsigned(sum, piece, weights);
}

// Fetches a part of the next block, four lines a step, in their order or from four substreams, a step for each row of a
// product: lines that are asked for in a burst wait for each other. Nothing to fetch is a line at hand, over and over:
// cheaper than a branch.
class Fetch {
 public:
  GQA_INLINE Fetch(const Ahead& ahead, const char* idle) : line_(idle), apart_(0), stride_(0), end_(idle) {
    if (!ahead.base) return;
    const bool pages = ahead.order == Prefetch::pages;
    const int64_t quarter = (ahead.bytes + 255) / 256 * 64;
    line_ = ahead.base;
    apart_ = pages ? quarter : 64;
    stride_ = pages ? 64 : 256;
    end_ = line_ + (pages ? quarter : ahead.bytes);
  }
  GQA_INLINE void step() {
    for (int s = 0; s < 4; ++s) prefetchLine(line_ + s * apart_);
    line_ += stride_;
    GQA_OPAQUE(line_);
  }
  GQA_INLINE void rest() {
    while (line_ < end_) step();
  }

 private:
  const char* line_;
  int64_t apart_, stride_;
  const char* end_;
};

// Words of a tile's weights, which hold 16 bits over q8_0 and 8 over q4_1: from a row to the next, and from a group of
// 32 lanes to the next.
constexpr int64_t weightBytes(DType storage) { return storage == DType::q8_0 ? 2 : 1; }
constexpr int64_t weightStride(DType storage) { return kScoreStride * weightBytes(storage) / 4; }
constexpr int64_t weightGroup(DType storage) { return kTileRows * weightStride(storage); }

struct IntegerArgs {
  const float* a;  // rows of words
  const char* b;   // the first vector's first row
  int64_t rowBytes;
  float* c;
  int64_t rows;  // of words
  // Scores, whose rows are kScoreStride apart: from a query to the next, from its words to its steps, and their number.
  int64_t aStride, steps, runs;
  int64_t cStride;  // values: from a row of c to the next
  const float *factors, *rowSteps, *groupSteps;
  Ahead ahead;  // the same part of the next block
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

// c = the row's shift, or c, and a run's sums in steps.
template <int R, int V, bool kFirst>
GQA_INLINE void addRun(const IVec (&sums)[R][V], const float* const (&steps)[R], int64_t run, int64_t runs, float* c) {
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r, c += kScoreStride) {
    const Vec step = splat(steps[r][run]);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
      store(c + v * kLanes, fma(toFloat(sums[r][v]), step, kFirst ? splat(steps[r][runs]) : load(c + v * kLanes)));
  }
}

// Adds one row of words, whose numbers every query has kPieces words of.
template <DType T, int R, int V>
GQA_INLINE void addScores(IVec (&sums)[R][V], const char* at, const float* const (&queries)[R]) {
  IVec words[V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) words[v] = loadI(at + v * 64);
#pragma GCC unroll 2
  for (int n = 0; n < kPieces; ++n) {
    IVec pieces[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) pieces[v] = keyDigits<T>(words[v], n);
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      const IVec q = splatWord(queries[r] + n);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sums[r][v] = dotKeys<T>(sums[r][v], pieces[v], q);
    }
  }
}

// V vectors from vector `first` on.
template <DType T, int R, int V>
GQA_NOINLINE void integerScoreTile(const IntegerArgs& t, int64_t first) {
  constexpr int64_t kRunRows = queryRun(T) / panelStep(T);
  const int64_t rowBytes = t.rowBytes, rows = t.rows;
  const char* at = t.b + first * 64;
  const float *queries[R], *steps[R];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
    queries[r] = t.a + r * t.aStride;
    steps[r] = queries[r] + t.steps;
  }
  float* c = t.c + first * kLanes;
  Fetch fetch(first == 0 ? t.ahead : Ahead(), at);
  for (int64_t run = 0, row = 0; run < t.runs; ++run) {
    IVec sums[R][V];
    clearSums(sums);
    const int64_t last = row + kRunRows < rows ? row + kRunRows : rows;
    for (; row < last; ++row, at += rowBytes) {
      GQA_OPAQUE(at);
      fetch.step();
      addScores<T, R, V>(sums, at, queries);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) queries[r] += kPieces;
    }
    if (run == 0)
      addRun<R, V, true>(sums, steps, run, t.runs, c);
    else
      addRun<R, V, false>(sums, steps, run, t.runs, c);
  }
  fetch.rest();
}

// Piece n of one row of V: its words meet the weights of the 32 lanes they belong to.
template <DType T, int R, int V>
GQA_INLINE void addValues(IVec (&sums)[R][V], const float* a, const char* row, int n) {
  IVec pieces[V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) pieces[v] = valueDigits<T>(loadI(row + v * 64), n);
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
      sums[r][v] = dotValues<T>(sums[r][v], pieces[v], splatWord(a + r * weightStride(T) + v / 2 * weightGroup(T)));
  }
}

template <DType T, int R, int V>
GQA_NOINLINE void integerValueTile(const IntegerArgs& t, int64_t first) {
  IVec sums[R][V];
  clearSums(sums);
  const char* row = t.b + first * 64;
  const float* a = t.a + first / 2 * weightGroup(T);
  const int64_t rows = t.rows, rowBytes = t.rowBytes;
  Fetch fetch(first == 0 ? t.ahead : Ahead(), row);
  for (int64_t i = 0; i < rows; ++i, row += rowBytes, a += kPieces) {
    GQA_OPAQUE(a);
    fetch.step();
#pragma GCC unroll 2
    for (int n = 0; n < kPieces; ++n) addValues<T>(sums, a + n, row, n);
  }
  fetch.rest();
  float* c = t.c + first * kLanes;
  Vec groupSteps[(V + 1) / 2];
  for (int g = 0; g < (V + 1) / 2; ++g) groupSteps[g] = splat(t.groupSteps[first / 2 + g]);
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r, c += t.cStride) {
    const Vec step = splat(t.rowSteps[r]), factor = splat(t.factors ? t.factors[r] : 1.f);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
      store(c + v * kLanes, fma(mul(toFloat(sums[r][v]), step), groupSteps[v / 2], mul(load(c + v * kLanes), factor)));
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
