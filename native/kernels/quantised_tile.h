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
  args.groups = k.groups();
  args.chunkBytes = k.chunkBytes(0);
  args.scales = k.scalesOffset(v, 0) - k.vectorOffset(v);
  args.minimums = k.rowVectors(0) * kLanes;
  args.ahead = {tileRow == 0 ? b.next : nullptr, k.bytes(), c.task.prefetch};
  for (int64_t r = 0, n; r < t.rows; r += n) {
    n = subTile(t.rows - r);
    args.a = c.query + (tileRow + r) * c.queryStride;
    args.c = t.row(r) + t.firstColumn;
    integerProduct<true>(k.dtype, args, n, (t.lastColumn - t.firstColumn) / kLanes);
    args.ahead.base = nullptr;
  }
}

// O = O * factors + W V over the tile's columns; no factors: O += W V. The scores are spent: their memory is reused.
GQA_INLINE void integerValues(const AttendContext& c, const KeyBlock& b, const ScoreTile& t, float* out,
                              const float* factors, const char* ahead) {
  const ValuePanels values = b.layout.quantisedValues();
  const int64_t vectors = roundUp(values.lanes, kLanes) / kLanes;
  const int bits = panelBits(values.dtype);
  IntegerWeights weights;
  weights.words = c.scores;
  rowSteps(c, t, values.dtype == DType::q8_0 ? kMost16 : kMost8, weights);
  IntegerArgs args = {};
  args.rows = (t.lastColumn - t.firstColumn) >> bits;
  args.cStride = c.task.states.stride;
  for (int64_t v = 0; v < vectors; v += kPanelVectors) {
    const int64_t left = least(kPanelVectors, vectors - v);
    if (v / 2 % kScaleGroups == 0) groupSteps(b, t, v, weights);
    packIntegerWeights(c, b, t, v, left, factors, weights);
    args.groupSteps = weights.groupSteps + v / 2 % kScaleGroups;
    args.rowBytes = values.rowBytes(v);
    args.ahead = {ahead ? ahead + values.panelOffset(v) : nullptr, values.columnBytes() * values.rowVectors(v),
                  c.task.prefetch};
    args.b = b.v + values.vectorOffset(v) + (t.firstColumn >> bits) * args.rowBytes;
    for (int64_t r = 0, n; r < t.rows; r += n) {
      n = subTile(t.rows - r);
      args.a = weights.words + r * weightStride(values.dtype);
      args.c = out + r * args.cStride + v * kLanes;
      args.factors = factors ? factors + r : nullptr;
      args.rowSteps = weights.rowSteps + r;
      integerProduct<false>(values.dtype, args, n, left);
      args.ahead.base = nullptr;
    }
  }
}

}  // namespace
}  // namespace gqa
