// A tile of few rows against a quantised block: what products.h is to blocks of floats.
#pragma once

namespace gqa {
namespace {

GQA_INLINE void integerScores(const AttendContext& c, const KeyBlock& b, const ScoreTile& t, int64_t tileRow) {
  const KeyPanel k = b.layout.quantisedKeys();
  const IntegerQueryLayout query = {k.dtype, k.dims};
  const float* rows = c.query + tileRow * c.queryStride;
  if (k.dtype == DType::q8_0) {
    keyTerms<DType::q8_0>(k, b.k, c.keyTerms);
    packIntegerQueries<DType::q8_0>(query, t.rows, rows, c.keyTerms, c.queryWords);
  } else {
    keyTerms<DType::q4_1>(k, b.k, c.keyTerms);
    packIntegerQueries<DType::q4_1>(query, t.rows, rows, c.keyTerms, c.queryWords);
  }
  IntegerArgs args = {};
  args.aStride = query.stride();
  args.steps = query.words();
  args.runs = query.runs();
  args.b = b.k + k.vectorOffset(t.firstColumn / kLanes);
  args.rowBytes = k.rowBytes();
  args.rows = k.rows();
  args.ahead = {tileRow == 0 ? b.nextK : nullptr, k.bytes(), c.task.prefetch};
  for (int64_t r = 0, n; r < t.rows; r += n) {
    n = subTile(t.rows - r);
    args.a = c.queryWords + r * args.aStride;
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
