// Attention on tiles: the two products of many rows with a block, S = Q K^T and O += W V, with Q, K, W and V in bf16
// or, for K and V of other dtypes and a caller who prefers speed, split in two terms of bf16.
#pragma once

namespace gqa {
namespace {

// Distance between the high and the low terms of weights.
constexpr int64_t kWeightTerms = kTileRows * kPairStride;

// x as the sum of two bf16: to 2^-17 of it, exact for an f16. An Infinity becomes a NaN.
GQA_INLINE void splitBf16(Vec x, uint16_t* high, uint16_t* low) {
  roundBf16(high, x);
  roundBf16(low, sub(x, loadBf16(high)));
}

GQA_INLINE BlockLayout splitLayout(const BlockLayout& b) {
  return {DType::bf16, DType::bf16, b.headDim, b.valueDim, b.blockTokens};
}

// Steps [first, last) of vectors [v, vEnd), `first` even; a step beyond the layout's is zero.
GQA_INLINE void splitPanels(const PanelLayout& from, const char* source, const PanelLayout& to, char* high, int64_t low,
                            int64_t v, int64_t vEnd, int64_t first, int64_t last) {
  for (; v < vEnd; ++v) {
    char* out = high + to.vectorOffset(v) + first / 2 * to.rowBytes(v);
    for (int64_t l = first; l < last; l += 2, out += to.rowBytes(v)) {
      uint16_t highs[2][kLanes], lows[2][kLanes];
      splitBf16(unpackStep(from, source, v, l), highs[0], lows[0]);
      splitBf16(l + 1 < from.steps ? unpackStep(from, source, v, l + 1) : zero(), highs[1], lows[1]);
      zipHalves(highs[0], highs[1], reinterpret_cast<uint16_t*>(out));
      zipHalves(lows[0], lows[1], reinterpret_cast<uint16_t*>(out + low));
    }
  }
}

// Tokens of a block's values that one product takes.
GQA_INLINE int64_t tileValueRun(int64_t blockTokens) { return 2 * tileDepth(blockTokens / 2); }

// The block with its keys [lo, hi) split, in the given place of the span: the high terms, the low ones
// `splitLayout().bytes()` behind.
GQA_INLINE KeyBlock splitBlock(const AttendContext& c, const KeyBlock& b, int64_t lo, int64_t hi, int64_t place) {
  const BlockLayout to = splitLayout(b.layout);
  const int64_t run = tileValueRun(c.blockTokens), low = to.bytes();
  char* k = c.terms + place * 2 * low;
  char* v = k + to.valueOffset();
  splitPanels(b.layout.keys(), b.k, to.keys(), k, low, lo / kLanes, roundUp(hi, kLanes) / kLanes, 0, b.layout.headDim);
  splitPanels(b.layout.values(), b.v, to.values(), v, low, 0, to.values().vectors(), lo / run * run, roundUp(hi, run));
  return {to, k, v, nullptr, nullptr};
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
  const TileSpan span = {reinterpret_cast<const char*>(c.query + tileRow * c.queryStride),
                         b.k + k.vectorOffset(t.firstColumn / kLanes), k.rows() / depth,
                         tileRow == 0 ? b.nextK : nullptr};
  TileArgs args = {};
  args.spans = &span;
  args.spanCount = 1;
  args.aRow = c.queryStride * 4;
  args.aRun = depth * 4;
  args.aTile = kTileSide * args.aRow;
  args.aLow = c.task.rows * args.aRow;
  args.bRow = k.rowBytes(0);
  args.bLow = b.layout.bytes();
  args.c = t.row(0) + t.firstColumn;
  args.cRow = kScoreStride * 4;
  args.substream = k.bytes() / depth;
  tileProduct(c, args, depth, t.rows, (t.lastColumn - t.firstColumn) / kLanes);
}

// A tile's weights that wait for their product with values: those of some blocks of a span.
struct WaitingWeights {
  struct Part {
    KeyBlock block;
    int64_t column;    // of weightPairs, where `from` is
    int64_t from, to;  // tokens of the block, whole runs of values
    const char* ahead;
  };
  Part parts[kSpanBlocks];
  int64_t count;
};

GQA_INLINE void storeWeights(const AttendContext& c, Vec w, uint16_t* high) {
  if (c.split())
    splitBf16(w, high, high + kWeightTerms);
  else
    roundBf16(high, w);
}

// Where the bases of rows have moved: what these rows have summed, and what waits to be.
GQA_INLINE void rescale(const AttendContext& c, const WaitingWeights& waiting, int64_t rows, float* out) {
  const int64_t stride = c.task.states.stride, width = roundUp(c.problem.valueDim, kLanes);
  for (int64_t r = 0; r < rows; ++r) {
    if (c.factors[r] == 1) continue;
    const Vec factor = splat(c.factors[r]);
    for (float* o = out + r * stride; o < out + r * stride + width; o += kLanes) store(o, mul(load(o), factor));
    for (int64_t i = 0; i < waiting.count; ++i) {
      const WaitingWeights::Part& part = waiting.parts[i];
      uint16_t* w = c.weightPairs + r * kPairStride + part.column;
      for (uint16_t* end = w + part.to - part.from; w < end; w += kLanes) {
        const Vec high = loadBf16(w), whole = c.split() ? add(high, loadBf16(w + kWeightTerms)) : high;
        storeWeights(c, mul(whole, factor), w);
      }
    }
  }
}

// Weights of columns [from, to) of a tile as bf16, zero where it has none, to wait for the values of the block.
GQA_INLINE void holdWeights(const AttendContext& c, const KeyBlock& b, const ScoreTile& t, int64_t from, int64_t to,
                            const char* ahead, WaitingWeights& waiting) {
  const int64_t column = waiting.count * kMaxBlockTokens;
  waiting.parts[waiting.count++] = {b, column, from, to, ahead};
  for (int64_t r = 0; r < t.rows; ++r)
    for (int64_t i = from; i < to; i += kLanes) {
      const bool held = i >= t.firstColumn && i < t.lastColumn;
      const Vec w = held ? load(c.weights + r * kScoreStride + i) : zero();
      storeWeights(c, w, c.weightPairs + r * kPairStride + column + i - from);
    }
}

// O += W V of what waits, for `rows` rows.
GQA_INLINE void tileValues(const AttendContext& c, const WaitingWeights& waiting, int64_t rows, float* out) {
  if (waiting.count == 0) return;
  const PanelLayout values = waiting.parts[0].block.layout.values();
  const int64_t depth = tileDepth(values.rows());
  TileSpan spans[kSpanBlocks];
  TileArgs args = {};
  args.spans = spans;
  args.spanCount = waiting.count;
  args.aRow = kPairStride * 2;
  args.aRun = depth * 4;
  args.aTile = kTileSide * args.aRow;
  args.aLow = kWeightTerms * 2;
  args.bLow = waiting.parts[0].block.layout.bytes();
  args.cRow = c.task.states.stride * 4;
  args.given = true;
  for (int64_t v = 0; v < values.vectors(); v += kPanelVectors) {
    args.bRow = values.rowBytes(v);
    args.c = out + v * kLanes;
    args.substream = values.rows() * args.bRow / depth;
    for (int64_t i = 0; i < waiting.count; ++i) {
      const WaitingWeights::Part& part = waiting.parts[i];
      spans[i] = {reinterpret_cast<const char*>(c.weightPairs + part.column),
                  part.block.v + values.vectorOffset(v) + part.from / 2 * args.bRow,
                  (part.to - part.from) / (2 * depth), part.ahead ? part.ahead + values.vectorOffset(v) : nullptr};
    }
    tileProduct(c, args, depth, rows, values.rowVectors(v));
  }
}

}  // namespace
}  // namespace gqa
