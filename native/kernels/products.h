// The two products of a tile with a block, S = Q K^T and O += P V, in sub-tiles of as many rows as the registers hold.
// A block of another storage is another pair of these.
#pragma once

namespace gqa {
namespace {

GQA_INLINE int64_t subTiles(int64_t rows) { return (rows + kMaxTileRows - 1) / kMaxTileRows; }
// Rows of the next sub-tile: `rows` split evenly.
GQA_INLINE int64_t subTile(int64_t rows) { return (rows + subTiles(rows) - 1) / subTiles(rows); }

// Rows [tileRow, tileRow + t.rows) of the task's queries with the columns of the tile.
GQA_INLINE void scoreProduct(const AttendContext& c, const KeyBlock& b, const ScoreTile& t, int64_t tileRow) {
  const PanelLayout k = b.layout.keys();
  const int64_t vectors = (t.lastColumn - t.firstColumn) / kLanes;
  PanelArgs args = {nullptr,
                    c.queryStride,
                    b.k + k.vectorOffset(t.firstColumn / kLanes),
                    k.rowBytes(0),
                    0,
                    k.paddedSteps(),
                    nullptr,
                    kScoreStride,
                    Start::zero,
                    nullptr,
                    {tileRow == 0 ? b.nextK : nullptr, k.bytes(), c.task.prefetch, subTiles(t.rows)},
                    c.keys == Form::pairs};
  for (int64_t r = 0, n; r < t.rows; r += n) {
    n = subTile(t.rows - r);
    args.a = c.query + (tileRow + r) * c.queryStride;
    args.c = t.row(r) + t.firstColumn;
    panelProduct(k.dtype, args, n, vectors);
    ++args.ahead.pass;
  }
}

// Rows of weights: f32, or bf16 in pairs; `stride` in 4-byte words.
struct WeightRows {
  const void* base;
  int64_t stride;
  bool pairs;
};

// O = O * factors + W V over columns [lo, hi); no factors: O += W V.
GQA_INLINE void valueProduct(const AttendContext& c, const KeyBlock& b, const WeightRows& w, int64_t rows, int64_t lo,
                             int64_t hi, float* out, const float* factors, const char* ahead) {
  const PanelLayout v = b.layout.values();
  const int64_t stride = c.task.states.stride;
  for (int64_t r = 0, n; r < rows; r += n) {
    n = subTile(rows - r);
    panelsProduct(v, b.v,
                  {static_cast<const char*>(w.base) + r * w.stride * 4,
                   w.stride,
                   nullptr,
                   0,
                   lo,
                   hi,
                   out + r * stride,
                   stride,
                   factors ? Start::scaled : Start::given,
                   factors ? factors + r : nullptr,
                   {ahead, 0, c.task.prefetch, subTiles(rows), subTiles(rows) - subTiles(rows - r)},
                   w.pairs},
                  n, 0, v.vectors());
  }
}

// The same for all rows of the tile with weights rounded to bf16; lo and hi are even.
GQA_INLINE void valuePairsProduct(const AttendContext& c, const KeyBlock& b, const ScoreTile& t, int64_t lo, int64_t hi,
                                  float* out, const float* factors, const char* ahead) {
  for (int64_t r = 0; r < t.rows * kScoreStride; r += kScoreStride)
    for (int64_t i = r + t.firstColumn; i < r + t.lastColumn; i += kLanes)
      roundBf16(c.weightPairs + i, load(c.weights + i));
  valueProduct(c, b, {c.weightPairs, kScoreStride / 2, true}, t.rows, lo, hi, out, factors, ahead);
}

// False if a value of columns [lo, hi) is NaN or Infinity: v * 0 is then NaN.
GQA_INLINE bool valuesFinite(const KeyBlock& b, int64_t lo, int64_t hi) {
  static const float zeros[kMaxBlockTokens] = {0};
  alignas(64) float product[kPanelLanes];
  const PanelLayout values = b.layout.values();
  float total = 0;
  for (int64_t v = 0; v < values.vectors(); v += kPanelLanes / kLanes) {
    const int64_t vectors = values.rowVectors(v);
    panelsProduct(values, b.v, {zeros, 0, nullptr, 0, lo, hi, product, 0, Start::zero, nullptr, {}}, 1, v, v + vectors);
    for (int64_t i = 0; i < vectors; ++i) total += reduceAdd(load(product + i * kLanes));
  }
  return total == 0;
}

// O = O * factors + W V without ever touching a hidden value, so that a NaN or an Infinity there stays hidden.
GQA_INLINE void valueProductGuarded(const AttendContext& c, const KeyBlock& b, const ScoreTile& t, float* out,
                                    int64_t lo, int64_t hi) {
  for (int64_t r = 0; r < t.rows; ++r) {
    const WeightRows weights = {c.weights + r * kScoreStride, kScoreStride, false};
    float* row = out + r * c.task.states.stride;
    valueProduct(c, b, weights, 1, lo, lo, row, c.factors + r, nullptr);  // an empty run: the rescaling alone
    for (int64_t l = lo; l < hi; ++l)
      if (sees(t, r, l)) valueProduct(c, b, weights, 1, l, l + 1, row, nullptr, nullptr);
  }
}

}  // namespace
}  // namespace gqa
