// Attention on tiles: the two products of many rows with a block, S = Q K^T and O += W V, with Q, K, W and V in bf16
// or, for K and V of other dtypes and a caller who prefers speed, split in two terms of bf16.
#pragma once

namespace gqa {
namespace {

// Whether tiles serve a task: fewer rows go through the vectors' registers in one pass.
GQA_INLINE bool tilesServe(const AttendProblem& p, int64_t rows) {
  return kTiles && rows > kMaxTileRows && tileDepth((p.headDim + 1) / 2) >= kLeastDepth;
}

// Whether K and V, which are not bf16, are split: that pays where many rows share the block.
GQA_INLINE bool tilesSplit(const AttendProblem& p, int64_t rows) {
  return p.fast && p.kvType != DType::bf16 && rows >= kTileBlockRows && tilesServe(p, rows);
}

// Distance between the high and the low terms of weights.
constexpr int64_t kWeightTerms = kTileRows * kScoreStride;

// x as the sum of two bf16: to 2^-17 of it, exact for an f16. An Infinity becomes a NaN.
GQA_INLINE void splitBf16(Vec x, uint16_t* high, uint16_t* low) {
  roundBf16(high, x);
  roundBf16(low, sub(x, loadBf16(high)));
}

GQA_INLINE BlockLayout splitLayout(const BlockLayout& b) { return {DType::bf16, b.headDim, b.valueDim, b.blockTokens}; }

GQA_INLINE Vec panelStepAt(const PanelLayout& layout, const char* row) {
  return layout.dtype == DType::f32 ? PanelF32::first(row) : PanelF16::first(row);
}

// Steps [first, last) of vectors [v, vEnd), `first` even; a step beyond the layout's is zero.
GQA_INLINE void splitPanels(const PanelLayout& from, const char* source, const PanelLayout& to, char* high, int64_t low,
                            int64_t v, int64_t vEnd, int64_t first, int64_t last) {
  for (; v < vEnd; ++v) {
    const char* row = source + from.vectorOffset(v) + first * from.rowBytes(v);
    char* out = high + to.vectorOffset(v) + first / 2 * to.rowBytes(v);
    for (int64_t l = first; l < last; l += 2, row += 2 * from.rowBytes(v), out += to.rowBytes(v)) {
      uint16_t highs[2][kLanes], lows[2][kLanes];
      splitBf16(panelStepAt(from, row), highs[0], lows[0]);
      splitBf16(l + 1 < from.steps ? panelStepAt(from, row + from.rowBytes(v)) : zero(), highs[1], lows[1]);
      zipHalves(highs[0], highs[1], reinterpret_cast<uint16_t*>(out));
      zipHalves(lows[0], lows[1], reinterpret_cast<uint16_t*>(out + low));
    }
  }
}

// Tokens of a block's values that one product takes.
GQA_INLINE int64_t tileValueRun(int64_t blockTokens) { return 2 * tileDepth(blockTokens / 2); }

// The block with its keys [lo, hi) split: the high terms, the low ones `splitLayout().bytes()` behind.
GQA_INLINE KeyBlock splitBlock(const AttendContext& c, const KeyBlock& b, int64_t lo, int64_t hi) {
  const BlockLayout to = splitLayout(b.layout);
  const int64_t run = tileValueRun(c.blockTokens), low = to.bytes();
  char* v = c.terms + to.valueOffset();
  splitPanels(b.layout.keys(), b.k, to.keys(), c.terms, low, lo / kLanes, roundUp(hi, kLanes) / kLanes, 0,
              b.layout.headDim);
  splitPanels(b.layout.values(), b.v, to.values(), v, low, 0, to.values().vectors(), lo / run * run, roundUp(hi, run));
  return {to, c.terms, v, nullptr};
}

GQA_INLINE void tileProduct(const AttendContext& c, const TileArgs& args, int64_t depth, int64_t rows,
                            int64_t vectors) {
  if (c.split())
    tileProduct<true>(*c.registers, args, depth, rows, vectors);
  else
    tileProduct<false>(*c.registers, args, depth, rows, vectors);
}

// Rows [tileRow, tileRow + t.rows) of the task's queries with the columns of the tile.
GQA_INLINE void tileScores(const AttendContext& c, const KeyBlock& b, const ScoreTile& t, int64_t tileRow) {
  const PanelLayout k = b.layout.keys();
  const int64_t depth = tileDepth(k.rows());
  TileArgs args = {};
  args.a = reinterpret_cast<const char*>(c.query + tileRow * c.queryStride);
  args.aRow = c.queryStride * 4;
  args.aRun = depth * 4;
  args.aTile = kTileSide * args.aRow;
  args.aLow = c.task.rows * args.aRow;
  args.b = b.k + k.vectorOffset(t.firstColumn / kLanes);
  args.bRow = k.rowBytes(0);
  args.bLow = b.layout.bytes();
  args.runs = k.rows() / depth;
  args.c = t.row(0) + t.firstColumn;
  args.cRow = kScoreStride * 4;
  args.ahead = {tileRow == 0 ? b.next : nullptr, k.bytes()};
  tileProduct(c, args, depth, t.rows, (t.lastColumn - t.firstColumn) / kLanes);
}

// Weights of columns [from, to) as bf16, zero where the tile has none.
GQA_INLINE void roundWeights(const AttendContext& c, const ScoreTile& t, int64_t from, int64_t to) {
  for (int64_t r = 0; r < t.rows * kScoreStride; r += kScoreStride)
    for (int64_t i = from; i < to; i += kLanes) {
      const Vec w = i >= t.firstColumn && i < t.lastColumn ? load(c.weights + r + i) : zero();
      uint16_t* high = c.weightPairs + r + i;
      if (c.split())
        splitBf16(w, high, high + kWeightTerms);
      else
        roundBf16(high, w);
    }
}

// O = O * factors + W V over columns [from, to), whole runs of values; no factors: O += W V.
GQA_INLINE void tileValues(const AttendContext& c, const KeyBlock& b, const ScoreTile& t, int64_t from, int64_t to,
                           float* out, const float* factors, const char* ahead) {
  const PanelLayout values = b.layout.values();
  const int64_t stride = c.task.states.stride, vectors = values.vectors(), depth = tileDepth(values.rows());
  roundWeights(c, t, from, to);
  if (factors)
    for (int64_t r = 0; r < t.rows; ++r)
      for (float* o = out + r * stride; o < out + r * stride + vectors * kLanes; o += kLanes)
        store(o, mul(load(o), splat(factors[r])));
  TileArgs args = {};
  args.a = reinterpret_cast<const char*>(c.weightPairs + from);
  args.aRow = kScoreStride * 2;
  args.aRun = depth * 4;
  args.aTile = kTileSide * args.aRow;
  args.aLow = kWeightTerms * 2;
  args.bLow = b.layout.bytes();
  args.runs = (to - from) / (2 * depth);
  args.cRow = stride * 4;
  args.given = true;
  for (int64_t v = 0; v < vectors; v += kPanelVectors) {
    args.b = b.v + values.vectorOffset(v) + from / 2 * values.rowBytes(v);
    args.bRow = values.rowBytes(v);
    args.c = out + v * kLanes;
    args.ahead = {ahead ? ahead + values.vectorOffset(v) : nullptr, values.rows() * args.bRow};
    tileProduct(c, args, depth, t.rows, values.rowVectors(v));
  }
}

}  // namespace
}  // namespace gqa
