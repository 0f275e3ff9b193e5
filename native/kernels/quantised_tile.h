// A tile of few rows against a quantised block: what products.h is to blocks of floats.
#pragma once

namespace gqa {
namespace {

// Rows of a task up to which the integer products pay; more rows share a block widened to f32.
constexpr int64_t kIntegerRows = 2 * kTileRows;

GQA_INLINE bool multipliesIntegers(const AttendProblem& p, int64_t rows) {
  return p.arena.base && isQuantised(p.arena.layout.dtype) && rows <= kIntegerRows;
}

GQA_INLINE void integerScores(const AttendContext& c, const KeyBlock& b, const ScoreTile& t, int64_t tileRow) {
  const PanelLayout k = b.layout.keys();
  const int64_t v = t.firstColumn / kLanes;
  IntegerArgs args = {};
  args.aStride = c.queryStride;
  args.b = b.k + k.vectorOffset(v);
  args.rowBytes = k.rowBytes(0);
  args.cStride = kScoreStride;
  args.groups = k.groups();
  args.chunkBytes = k.chunkBytes(0);
  args.scales = k.scalesOffset(v, 0) - k.vectorOffset(v);
  args.minimums = k.rowVectors(0) * kLanes;
  args.ahead = tileRow == 0 ? b.next : nullptr;
  args.aheadBytes = k.bytes();
  for (int64_t r = 0, n; r < t.rows; r += n) {
    n = subTile(t.rows - r);
    args.a = c.query + (tileRow + r) * c.queryStride;
    args.c = t.row(r) + t.firstColumn;
    integerProduct<true>(k.dtype, args, n, (t.lastColumn - t.firstColumn) / kLanes);
    args.ahead = nullptr;
  }
}

// A tile's weights as numbers of 16 bits for the two groups of 32 dims of a panel.
struct IntegerWeights {
  float largest[kTileRows], inverse[kTileRows];  // of each row's weights
  int16_t* words;                                // [2][kTileRows][kScoreStride]
  float steps[2 * kTileRows];
};

// What the minimums of V add to a row's dims, sum p m per group of 32, stays in 16 lanes as the sums do: a task ends
// with adding them up.
GQA_INLINE int64_t minimumGroups(const AttendProblem& p) {
  return p.arena.layout.dtype == DType::q4_1 ? roundUp(p.valueDim, kGroup) / kGroup : 0;
}

GQA_INLINE void addMinimums(const AttendContext& c) {
  const int64_t groups = minimumGroups(c.problem), width = roundUp(c.problem.valueDim, kLanes);
  const float* lanes = c.minimums;
  for (int64_t r = 0; r < c.task.rows; ++r) {
    float* out = c.task.states.out + r * c.task.states.stride;
    for (int64_t d = 0; d < groups * kGroup; d += kGroup, lanes += kLanes) {
      const Vec total = splat(reduceAdd(load(lanes)));
      for (int64_t i = d; i < d + kGroup && i < width; i += kLanes) store(out + i, add(load(out + i), total));
    }
  }
}

// A weight that is not finite has spoilt its row's sum, and with it the result: it is ignored here.
GQA_INLINE void largestWeights(const AttendContext& c, const ScoreTile& t, IntegerWeights& w) {
  for (int64_t r = 0; r < t.rows; ++r) {
    const float* p = c.weights + r * kScoreStride;
    Vec highest = zero();
    for (int64_t i = t.firstColumn; i < t.lastColumn; i += kLanes) highest = max(load(p + i), highest);
    w.largest[r] = reduceMax(highest);
    w.inverse[r] = kMost16 / w.largest[r];
  }
}

// Weights that are less than this of the largest, times scales, add nothing that a float could show.
constexpr float kLeastStep = 1e-30f;

// One group of 32 dims: its scales, to its side of a panel's weights, and where its rows' minimums add up.
struct WeightGroup {
  const uint16_t* scales;
  int64_t side;
  float* minimums;  // of the tile's first row
  int64_t minimumStride;
  const float* factors;
};

// Words and steps of every row for a group; the tile's columns are N vectors.
template <DType T, int N>
GQA_INLINE void packIntegerWeights(const AttendContext& c, const KeyBlock& b, const ScoreTile& t, const WeightGroup& g,
                                   IntegerWeights& w) {
  const int64_t first = t.firstColumn;
  Vec scales[N], minimums[N], highest = zero();
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i) {
    scales[i] = loadF16(g.scales + first + i * kLanes);
    if (T == DType::q4_1) minimums[i] = loadF16(g.scales + b.layout.blockTokens + first + i * kLanes);
    highest = max(scales[i], highest);
  }
  const float largest = reduceMax(highest), inverse = 1 / largest;
  for (int64_t r = 0; r < t.rows; ++r) {
    const float* p = c.weights + r * kScoreStride + first;
    int16_t* words = w.words + (g.side * kTileRows + r) * kScoreStride + first;
    const float product = largest * w.largest[r];
    const Vec factor = splat(product > kLeastStep ? inverse * w.inverse[r] : 0.f);
    float* lanes = g.minimums + r * g.minimumStride;
    Vec total = zero();
    if (T == DType::q4_1) total = g.factors ? mul(load(lanes), splat(g.factors[r])) : load(lanes);
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) {
      const Vec x = load(p + i * kLanes);
      storeI16(words + i * kLanes, mul(mul(x, scales[i]), factor));
      if (T == DType::q4_1) total = fma(x, minimums[i], total);
    }
    if (T == DType::q4_1) store(lanes, total);
    w.steps[g.side * kTileRows + r] = product > kLeastStep ? product / kMost16 : 0.f;
  }
}

template <DType T>
GQA_INLINE void packIntegerWeights(const AttendContext& c, const KeyBlock& b, const ScoreTile& t, const WeightGroup& g,
                                   IntegerWeights& w) {
  const int64_t vectors = (t.lastColumn - t.firstColumn) / kLanes;
  if (vectors == 4) return packIntegerWeights<T, 4>(c, b, t, g, w);
  if (vectors == 3) return packIntegerWeights<T, 3>(c, b, t, g, w);
  if (vectors == 2) return packIntegerWeights<T, 2>(c, b, t, g, w);
  packIntegerWeights<T, 1>(c, b, t, g, w);
}

// For the groups of dims that vectors [v, v + vectors) of a panel hold.
GQA_INLINE void packIntegerWeights(const AttendContext& c, const KeyBlock& b, const ScoreTile& t, int64_t v,
                                   int64_t vectors, const float* factors, IntegerWeights& w) {
  const ValuePanels values = b.layout.quantisedValues();
  const int64_t groups = minimumGroups(c.problem), tileRow = t.firstRow - c.task.firstRow;
  for (int64_t side = 0; 2 * side < vectors; ++side) {
    const uint16_t* scales = reinterpret_cast<const uint16_t*>(b.v + values.scalesOffset(v + 2 * side));
    const int64_t lanes = (tileRow * groups + v / 2 + side) * kLanes;
    const WeightGroup g = {scales, side, groups > 0 ? c.minimums + lanes : nullptr, groups * kLanes, factors};
    if (values.dtype == DType::q8_0)
      packIntegerWeights<DType::q8_0>(c, b, t, g, w);
    else
      packIntegerWeights<DType::q4_1>(c, b, t, g, w);
  }
}

// O = O * factors + W V over the tile's columns; no factors: O += W V. The scores are spent: their memory is reused.
GQA_INLINE void integerValues(const AttendContext& c, const KeyBlock& b, const ScoreTile& t, float* out,
                              const float* factors, const char* ahead) {
  const ValuePanels values = b.layout.quantisedValues();
  const int64_t vectors = roundUp(values.lanes, kLanes) / kLanes;
  const int bits = panelBits(values.dtype);
  IntegerWeights weights;
  weights.words = reinterpret_cast<int16_t*>(c.scores);
  largestWeights(c, t, weights);
  IntegerArgs args = {};
  args.aStride = kScoreStride / 2;
  args.aGroup = kTileRows * kScoreStride / 2;
  args.rows = (t.lastColumn - t.firstColumn) >> bits;
  args.cStride = c.task.states.stride;
  args.stepStride = kTileRows;
  for (int64_t v = 0; v < vectors; v += kPanelVectors) {
    const int64_t left = least(kPanelVectors, vectors - v);
    packIntegerWeights(c, b, t, v, left, factors, weights);
    args.rowBytes = values.rowBytes(v);
    args.ahead = ahead ? ahead + values.panelOffset(v) : nullptr;
    args.aheadBytes = values.columnBytes() * values.rowVectors(v);
    args.b = b.v + values.vectorOffset(v) + (t.firstColumn >> bits) * args.rowBytes;
    for (int64_t r = 0, n; r < t.rows; r += n) {
      n = subTile(t.rows - r);
      args.a = reinterpret_cast<const float*>(weights.words + r * kScoreStride + t.firstColumn);
      args.c = out + r * args.cStride + v * kLanes;
      args.factors = factors ? factors + r : nullptr;
      args.steps = weights.steps + r;
      integerProduct<false>(values.dtype, args, n, left);
      args.ahead = nullptr;
    }
  }
}

}  // namespace
}  // namespace gqa
