// What the weights of a row look like, from the online softmax itself: entropy, mass on first and recent keys, largest
// score, keys seen. Weights w = 2^(s - m) are those of softmax.h, before dropout and before they are rounded.
//   H = -sum p ln p = ln l - ln 2 sum w (s - m) / l, p = w / l
// so that entropy costs one sum beside l; where m moves to m', that sum becomes f (sum + (m - m') l), f = 2^(m - m').
#pragma once
#include <cmath>

namespace gqa {
namespace {

constexpr RowStatistics kNoStatistics = {0, 0, 0, -kInfinity, 0};

// Expresses sums relative to another base: `change` is the old one less the new one, -Infinity where nothing has been
// summed yet, and `factor` 2^change.
GQA_INLINE void rebase(RowStatistics& s, float sum, float change, float factor) {
  const float moved = change == -kInfinity ? 0.f : change * sum;
  s.spread = factor * (s.spread + moved);
  s.sink *= factor;
  s.recent *= factor;
}

// to + from, whose bases are changed by toChange and fromChange; the sums are those before it.
GQA_INLINE void mergeStatistics(RowStatistics& to, float toSum, float toChange, float toFactor, RowStatistics from,
                                float fromSum, float fromChange, float fromFactor) {
  rebase(to, toSum, toChange, toFactor);
  rebase(from, fromSum, fromChange, fromFactor);
  to.spread += from.spread;
  to.sink += from.sink;
  to.recent += from.recent;
  to.highest = to.highest > from.highest ? to.highest : from.highest;
  to.visible += from.visible;
}

GQA_INLINE float share(float x) { return x < 0 ? 0 : x > 1 ? 1 : x; }  // rounding aside; NaN stays NaN

// Writes a row. `sum` is that of the keys' weights; where a sink logit of weight `sinkLogit` has joined, they count
// `factor` times as much.
GQA_INLINE void finishStatistics(const StatisticsView& view, int64_t row, const RowStatistics& s, float sum,
                                 float factor, float sinkLogit) {
  const bool seen = !(sum == 0);  // true for NaN
  const float whole = sum * factor + sinkLogit;
  const float entropy = std::log(sum) - kLn2 * s.spread / sum;
  float* to = view.data + row;
  to[int64_t(Statistic::entropy) * view.plane] = seen && s.visible > 1 ? share(entropy / std::log(s.visible)) : 0.f;
  to[int64_t(Statistic::sinkMass) * view.plane] = seen ? share((s.sink * factor + sinkLogit) / whole) : 0.f;
  to[int64_t(Statistic::recentMass) * view.plane] = seen ? share(s.recent * factor / whole) : 0.f;
  to[int64_t(Statistic::maxLogit) * view.plane] = kLn2 * s.highest;
  to[int64_t(Statistic::visible) * view.plane] = s.visible;
}

}  // namespace
}  // namespace gqa
