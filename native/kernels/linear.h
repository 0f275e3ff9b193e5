// y[m, n] = sum_k x[m, k] W[n, k] + bias[n] over packed weights (pack.h); f32 in, out and accumulated. One token reads
// the weights once (GEMV); more tokens share each panel from the cache.
#pragma once

namespace gqa {
namespace {

constexpr int64_t kPanelGroup = 8;  // panels a token's registers take at once

void linearPanels(const LinearProblem& p, int64_t firstPanel, int64_t lastPanel, int64_t firstToken,
                  int64_t lastToken) {
  alignas(64) float tile[kMaxTileRows * kPanelGroup * kLanes];
  const WeightsView& w = p.weights;
  for (int64_t panel = firstPanel; panel < lastPanel; panel += kPanelGroup) {
    const int64_t panels = lastPanel - panel < kPanelGroup ? lastPanel - panel : kPanelGroup;
    const int64_t feature = panel * kLanes;
    const int64_t features = feature + panels * kLanes < w.rows ? panels * kLanes : w.rows - feature;
    for (int64_t m = firstToken; m < lastToken; m += kMaxTileRows) {
      const int64_t tokens = lastToken - m < kMaxTileRows ? lastToken - m : kMaxTileRows;
      panelProduct(w.dtype,
                   {p.x + m * w.columns, w.columns, w.base + panel * w.panelBytes(), w.panelBytes(), 0, w.columns, tile,
                    kPanelGroup * kLanes, nullptr, p.prefetch},
                   tokens, panels);
      for (int64_t r = 0; r < tokens; ++r)
        for (int64_t n = 0; n < features; n += kLanes) {
          const int64_t lanes = lanesLeft(n, features);
          const Vec y = load(tile + r * kPanelGroup * kLanes + n);
          storeFirst(p.out + (m + r) * w.rows + feature + n, lanes,
                     p.bias ? add(y, loadFirst(p.bias + feature + n, lanes)) : y);
        }
    }
  }
}

}  // namespace
}  // namespace gqa
