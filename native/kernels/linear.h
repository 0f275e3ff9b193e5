// y[m, n] = sum_k x[m, k] W[n, k] + bias[n] over packed weights (pack.h); f32 in, out and accumulated. One token reads
// the weights once (GEMV); more tokens share each panel from the cache.
#pragma once

namespace gqa {
namespace {

void linearVectors(const LinearProblem& p, int64_t first, int64_t last, int64_t firstToken, int64_t lastToken) {
  alignas(64) float tile[kMaxTileRows * kPanelLanes];
  const WeightsView& w = p.weights;
  for (int64_t v = first; v < last; v += kPanelLanes / kLanes) {
    const int64_t feature = v * kLanes, vectors = last - v < kPanelLanes / kLanes ? last - v : kPanelLanes / kLanes;
    const int64_t features = feature + vectors * kLanes < w.rows ? vectors * kLanes : w.rows - feature;
    const bool more = p.prefetch && v + kPanelLanes / kLanes < last;
    for (int64_t m = firstToken; m < lastToken; m += kMaxTileRows) {
      const int64_t tokens = lastToken - m < kMaxTileRows ? lastToken - m : kMaxTileRows;
      panelsProduct(w.layout(), w.base,
                    {p.x + m * w.columns,
                     w.columns,
                     nullptr,
                     0,
                     0,
                     w.columns,
                     tile,
                     kPanelLanes,
                     nullptr,
                     {more && m == firstToken ? w.base + w.layout().panelBytes() : nullptr, 0}},
                    tokens, v, v + vectors);
      for (int64_t r = 0; r < tokens; ++r)
        for (int64_t n = 0; n < features; n += kLanes) {
          const int64_t lanes = lanesLeft(n, features);
          const Vec y = load(tile + r * kPanelLanes + n);
          storeFirst(p.out + (m + r) * w.rows + feature + n, lanes,
                     p.bias ? add(y, loadFirst(p.bias + feature + n, lanes)) : y);
        }
    }
  }
}

}  // namespace
}  // namespace gqa
