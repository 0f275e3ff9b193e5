// Linear layers of many tokens on tiles: x and W in bf16, weights of bf16 as they lie, blocks of 32 widened. Bytes have
// tiles of their own, but a sum of 32 products fills half of one, and scaling it takes longer than the product: widened
// to bf16 once for many tokens, blocks are multiplied at the rate of bf16.
#pragma once

namespace gqa {
namespace {

// Tokens from which on tiles are used: a tile of them, or what pays for widening the weights.
constexpr int64_t kLeastTileTokens = kTileSide;
constexpr int64_t kLeastWidenedTokens = 6 * kTileSide;
// Runs of pairs whose weights, of two tiles of features, stay in L1 while all tokens meet them: 32 KB. Widened ones,
// of a whole panel, take as much.
constexpr int64_t kChunkRuns = 16;
constexpr int64_t kWidenedRuns = 8;

// Vectors [v, v + vectors) of one panel of a part's weights, tokens [first, last).
struct Segment {
  const LinearProblem& problem;
  const WeightsView& weights;
  int64_t v, vectors, first, last;
  const char* ahead;  // as much of the next panel, to be prefetched; null for none
};

GQA_INLINE bool tilesServe(const LinearProblem& p, DType weights) {
  if (!kTiles || !p.fast || (weights != DType::bf16 && !isQuantised(weights))) return false;
  const int64_t tokens = isQuantised(weights) ? kLeastWidenedTokens : kLeastTileTokens;
  return p.tokens >= tokens && tileDepth((p.columns + 1) / 2) >= kLeastDepth;
}

// Groups [first, last) of a panel's vectors [v, v + vectors) as a panel of bf16, [pair][kPanelLanes][2].
GQA_INLINE void widenPairs(const WeightsView& w, int64_t v, int64_t vectors, int64_t first, int64_t last,
                           uint16_t* strip) {
  alignas(64) float wide[kGroup * kPanelLanes];
  for (int64_t g = first; g < last; ++g) {
    widenStrip(w, v, vectors, g, g + 1, wide);
    for (const float* step = wide; step < wide + kGroup * kPanelLanes; step += 2 * kPanelLanes)
      for (int64_t i = 0; i < vectors * kLanes; i += kLanes) {
        uint16_t even[kLanes], odd[kLanes];
        roundBf16(even, load(step + i));
        roundBf16(odd, load(step + kPanelLanes + i));
        zipHalves(even, odd, strip + (step - wide) + 2 * i);
      }
    strip += kGroup * kPanelLanes;
  }
}

// C[token][kPanelLanes] of a segment. A chunk of the weights meets all tokens before the next does.
void tileProducts(const Segment& s, float* c) {
  alignas(64) uint16_t strip[kWidenedRuns * kGroup * kPanelLanes];
  const PanelLayout layout = s.weights.layout();
  const bool widened = isQuantised(layout.dtype);
  const int64_t pairs = (s.weights.columns + 1) / 2, depth = tileDepth(pairs), runs = pairs / depth;
  const int64_t rowBytes = layout.rowBytes(s.v), tileBytes = kTileSide * pairs * 4;
  const int64_t chunk = widened ? kWidenedRuns : kChunkRuns;
  Tiles registers;
  TileSpan span = {};
  TileArgs args = {};
  args.spans = &span;
  args.spanCount = 1;
  args.aRow = depth * 4;
  args.aRun = kTileSide * args.aRow;
  args.aTile = tileBytes;
  args.bRow = widened ? kPanelLanes * 4 : rowBytes;
  args.cRow = kPanelLanes * 4;
  for (int64_t run = 0; run < runs; run += chunk) {
    span.runs = least(chunk, runs - run);
    args.given = run > 0;
    span.b = widened ? reinterpret_cast<const char*>(strip)
                     : s.weights.base + layout.vectorOffset(s.v) + run * depth * rowBytes;
    if (widened) widenPairs(s.weights, s.v, s.vectors, run, run + span.runs, strip);
    span.ahead = s.ahead && !widened ? s.ahead + run * depth * rowBytes : nullptr;
    args.substream = span.runs * rowBytes;
    for (int64_t m = s.first; m < s.last; m += kTileBlockRows) {
      span.a = static_cast<const char*>(s.problem.forms.tiles) + m / kTileSide * tileBytes + run * args.aRun;
      args.c = c + (m - s.first) * kPanelLanes;
      tileProduct<false>(registers, args, depth, least(kTileBlockRows, s.last - m), s.vectors);
      span.ahead = nullptr;
    }
  }
  registers.release();
}

}  // namespace
}  // namespace gqa
