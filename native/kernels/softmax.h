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
};

// Weights of a row relative to `base`, their lane sums returned.
GQA_INLINE Vec rowWeights(const ScoreTile& t, int64_t r, float scale, float base, float* weights) {
  const float* s = t.row(r);
  const Vec factor = splat(scale), shift = splat(-base);
  Vec total = zero();
  for (int64_t i = t.firstColumn; i < t.lastColumn; i += kLanes) {
    const Vec w = exp2(fma(load(s + i), factor, shift));
    total = add(total, w);
    store(weights + i, w);
  }
  return total;
}

// A NaN anywhere may or may not be the result: it reaches the weights all the same.
GQA_INLINE float rowMax(const ScoreTile& t, int64_t r) {
  Vec m = load(t.row(r) + t.firstColumn);
  for (int64_t i = t.firstColumn + kLanes; i < t.lastColumn; i += kLanes) m = max(load(t.row(r) + i), m);
  return reduceMax(m);
}

// Weights of every row, of scores times `scale` > 0, and their part of the sums. False if no row's base moved; else
// each row's output is to be multiplied by its factor, as its sums already are.
GQA_INLINE bool softmaxTile(const ScoreTile& t, float scale, const RowBases& rows, float* weights) {
  bool moved = false;
  for (int64_t r = 0; r < t.rows; ++r) {
    float* w = weights + r * kScoreStride;
    float* sums = rows.sums + r * kLanes;
    rows.factors[r] = 1;
    if (rows.base[r] != -kInfinity) {
      const Vec total = rowWeights(t, r, scale, rows.base[r], w);
      if (!anyLess(splat(kDrift), total)) {
        store(sums, add(load(sums), total));
        continue;
      }
    }
    const float highest = rowMax(t, r) * scale, before = rows.base[r];
    rows.base[r] = before > highest ? before : highest;
    const float base = softmaxBase(rows.base[r]);
    rows.factors[r] = exp2One(before - base);
    store(sums, fma(load(sums), splat(rows.factors[r]), rowWeights(t, r, scale, base, w)));
    moved = true;
  }
  return moved;
}

}  // namespace
}  // namespace gqa
