// Scores of a tile to weights: W = 2^(S - m), l += sum W, both relative to a base m of each row.
//
// m need not be the maximum: any m that no score passes by far gives the same quotient o / l. So a row takes the true
// maximum of the first keys it sees and keeps it; only where a weight passes 2^kDrift is m raised to the new maximum
// and what was summed so far rescaled. That spares most blocks the pass for the maximum and the rescaling of O. Sums
// stay in 16 lanes per row until the task ends.
#pragma once

namespace gqa {
namespace {

// Scores may pass their row's base by so much: sums and outputs then stay this far from overflow, and f32 keeps its
// relative precision whatever the scale.
constexpr float kDrift = 65536.f;  // 2^16

// What a tile's rows are measured from.
struct RowBases {
  float* base;     // [rows], -Infinity for a row that has seen no key
  float* sums;     // [rows][16]
  float* factors;  // [rows], out: 2^(old - new base)
  // Where statistics are asked for: [rows][16] lanes of their sum w (s - base) and of the largest score, before its
  // scale, and what is kept a row at a time.
  float* spreads;
  float* highest;
  RowStatistics* statistics;
};

// Whether statistics are asked for, of a tile in which every column is visible, or in which some may be hidden.
enum class Observe { nothing, whole, hidden };

// Lane sums of a row over a block.
struct RowTotals {
  Vec weights;          // sum w
  Vec spread, highest;  // sum w (s - base), largest score, where statistics are asked for
};

// Weights of a row relative to `base`.
template <Observe kObserve>
GQA_INLINE RowTotals rowWeights(const ScoreTile& t, int64_t r, float scale, float base, float* weights) {
  const float* s = t.row(r);
  const Vec factor = splat(scale), shift = splat(-base);
  const Vec vanished = splat(-126.f);  // exp2 is 0 from here on, and a product with -Infinity would be NaN
  RowTotals totals = {zero(), zero(), splat(-kInfinity)};
  for (int64_t i = t.firstColumn; i < t.lastColumn; i += kLanes) {
    const Vec score = load(s + i), x = fma(score, factor, shift), w = exp2(x);
    totals.weights = add(totals.weights, w);
    if (kObserve == Observe::whole) totals.spread = fma(w, x, totals.spread);
    if (kObserve == Observe::hidden) totals.spread = fma(w, max(vanished, x), totals.spread);
    if (kObserve != Observe::nothing) totals.highest = max(totals.highest, score);
    store(weights + i, w);
  }
  return totals;
}

// Adds a block's sums to the row's.
GQA_INLINE void observeRow(const RowBases& rows, int64_t r, const RowTotals& totals) {
  float *spread = rows.spreads + r * kLanes, *highest = rows.highest + r * kLanes;
  store(spread, add(load(spread), totals.spread));
  store(highest, max(load(highest), totals.highest));
}

// The same of a row's statistics as `rebase`; sums are those before it.
GQA_INLINE void rebaseRow(const RowBases& rows, int64_t r, float change) {
  float* spread = rows.spreads + r * kLanes;
  const Vec moved = mul(splat(change == -kInfinity ? 0.f : change), load(rows.sums + r * kLanes));
  store(spread, mul(add(load(spread), moved), splat(rows.factors[r])));
  rows.statistics[r].sink *= rows.factors[r];
  rows.statistics[r].recent *= rows.factors[r];
}

// A NaN anywhere may or may not be the result: it reaches the weights all the same.
GQA_INLINE float rowMax(const ScoreTile& t, int64_t r) {
  Vec m = load(t.row(r) + t.firstColumn);
  for (int64_t i = t.firstColumn + kLanes; i < t.lastColumn; i += kLanes) m = max(load(t.row(r) + i), m);
  return reduceMax(m);
}

// Weights of every row, of scores times `scale` > 0, and their part of the sums. False if no row's base moved; else
// each row's output is to be multiplied by its factor, as its sums already are.
template <Observe kObserve>
GQA_INLINE bool softmaxTile(const ScoreTile& t, float scale, const RowBases& rows, float* weights) {
  constexpr bool kObserves = kObserve != Observe::nothing;
  bool moved = false;
  for (int64_t r = 0; r < t.rows; ++r) {
    float* w = weights + r * kScoreStride;
    float* sums = rows.sums + r * kLanes;
    rows.factors[r] = 1;
    if (rows.base[r] != -kInfinity) {
      const RowTotals totals = rowWeights<kObserve>(t, r, scale, rows.base[r], w);
      if (!anyLess(splat(kDrift), totals.weights)) {
        store(sums, add(load(sums), totals.weights));
        if (kObserves) observeRow(rows, r, totals);
        continue;
      }
    }
    const float highest = rowMax(t, r) * scale, before = rows.base[r];
    rows.base[r] = before > highest ? before : highest;
    const float base = softmaxBase(rows.base[r]);
    rows.factors[r] = exp2One(before - base);
    const RowTotals totals = rowWeights<kObserve>(t, r, scale, base, w);
    if (kObserves) {
      rebaseRow(rows, r, before - base);
      observeRow(rows, r, totals);
    }
    store(sums, fma(load(sums), splat(rows.factors[r]), totals.weights));
    moved = true;
  }
  return moved;
}

}  // namespace
}  // namespace gqa
