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
  int16_t* words;  // [2][kTileRows][kScoreStride]
  float steps[2 * kTileRows], constants[2 * kTileRows];
};

// The scales of a group's tokens relative to their largest, which is returned; the minimums.
GQA_INLINE float readScales(const ValuePanels& values, const char* base, int64_t v, const ScoreTile& t, float* relative,
                            float* minimums) {
  const uint16_t* halves = reinterpret_cast<const uint16_t*>(base + values.scalesOffset(v));
  Vec highest = zero();
  for (int64_t i = t.firstColumn; i < t.lastColumn; i += kLanes) {
    store(relative + i, loadF16(halves + i));
    highest = max(load(relative + i), highest);
    if (values.dtype == DType::q4_1) store(minimums + i, loadF16(halves + values.tokens + i));
  }
  const float most = reduceMax(highest);
  const Vec inverse = splat(most > 0 ? 1 / most : 0.f);
  for (int64_t i = t.firstColumn; i < t.lastColumn; i += kLanes) store(relative + i, mul(load(relative + i), inverse));
  return most;
}

// Group `side` of a panel, its first vector v: words, steps and constants of every row. `most` holds the rows' largest
// weights, NaN where one is not finite.
GQA_INLINE void packIntegerWeights(const AttendContext& c, const KeyBlock& b, const ScoreTile& t, int64_t v,
                                   int64_t side, const float* most, IntegerWeights& w) {
  const ValuePanels values = b.layout.quantisedValues();
  alignas(64) float relative[kScoreStride], minimums[kScoreStride];
  const float scale = readScales(values, b.v, v, t, relative, minimums);
  for (int64_t r = 0; r < t.rows; ++r) {
    const float* p = c.weights + r * kScoreStride;
    int16_t* words = w.words + (side * kTileRows + r) * kScoreStride;
    const Vec inverse = splat(most[r] > 0 ? kMost16 / most[r] : 0.f);
    Vec constant = zero();
    for (int64_t i = t.firstColumn; i < t.lastColumn; i += kLanes) {
      storeI16(words + i, mul(mul(load(p + i), inverse), load(relative + i)));
      if (values.dtype == DType::q4_1) constant = fma(load(p + i), load(minimums + i), constant);
    }
    w.steps[side * kTileRows + r] = most[r] / kMost16 * scale;
    w.constants[side * kTileRows + r] = values.dtype == DType::q4_1 ? reduceAdd(constant) : 0.f;
  }
}

GQA_INLINE void largestWeights(const AttendContext& c, const ScoreTile& t, float* most) {
  for (int64_t r = 0; r < t.rows; ++r) {
    const float* p = c.weights + r * kScoreStride;
    Vec highest = zero(), sum = zero();
    for (int64_t i = t.firstColumn; i < t.lastColumn; i += kLanes) {
      highest = max(load(p + i), highest);
      sum = add(sum, load(p + i));
    }
    most[r] = reduceMax(highest) + notFinite(sum);
  }
}

// O = O * factors + W V over the tile's columns; no factors: O += W V. The scores are spent: their memory is reused.
GQA_INLINE void integerValues(const AttendContext& c, const KeyBlock& b, const ScoreTile& t, float* out,
                              const float* factors, const char* ahead) {
  const ValuePanels values = b.layout.quantisedValues();
  const int64_t vectors = roundUp(values.lanes, kLanes) / kLanes, k = panelStep(values.dtype);
  IntegerWeights weights;
  weights.words = reinterpret_cast<int16_t*>(c.scores);
  float most[kTileRows];
  largestWeights(c, t, most);
  IntegerArgs args = {};
  args.aStride = kScoreStride / 2;
  args.aGroup = kTileRows * kScoreStride / 2;
  args.rows = (t.lastColumn - t.firstColumn) / k;
  args.cStride = c.task.states.stride;
  args.stepStride = kTileRows;
  for (int64_t v = 0; v < vectors; v += kPanelVectors) {
    const int64_t left = least(kPanelVectors, vectors - v);
    for (int64_t side = 0; 2 * side < left; ++side) packIntegerWeights(c, b, t, v + 2 * side, side, most, weights);
    args.rowBytes = values.rowBytes(v);
    args.ahead = ahead ? ahead + values.panelOffset(v) : nullptr;
    args.aheadBytes = values.columnBytes() * values.rowVectors(v);
    args.b = b.v + values.vectorOffset(v) + t.firstColumn / k * args.rowBytes;
    for (int64_t r = 0, n; r < t.rows; r += n) {
      n = subTile(t.rows - r);
      args.a = reinterpret_cast<const float*>(weights.words + r * kScoreStride + t.firstColumn);
      args.c = out + r * args.cStride + v * kLanes;
      args.factors = factors ? factors + r : nullptr;
      args.steps = weights.steps + r;
      args.constants = weights.constants + r;
      integerProduct<false>(values.dtype, args, n, left);
      args.ahead = nullptr;
    }
  }
}

}  // namespace
}  // namespace gqa
