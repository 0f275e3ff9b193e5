// The mergeable softmax state of a row: m = maximum score (times log2 e), l = sum 2^(s - m), o = sum 2^(s - m) v.
// merge: m = max(m1, m2), l = l1 2^(m1 - m) + l2 2^(m2 - m), o likewise. A row that has seen no key is (-Infinity, 0,
// 0).
#pragma once

namespace gqa {
namespace {

// What scores are measured from: never -Infinity, so that -Infinity - base is -Infinity and not NaN.
GQA_INLINE float softmaxBase(float max) { return max == -kInfinity ? 0.f : max; }

GQA_INLINE float exp2One(float x) {
  float lanes[kLanes];
  store(lanes, exp2(splat(x)));
  return lanes[0];
}

void initStates(const RowStates& s, int64_t rows, int64_t width) {
  for (int64_t r = 0; r < rows; ++r) {
    s.max[r] = -kInfinity;
    s.sum[r] = 0;
    if (s.statistics) s.statistics[r] = kNoStatistics;
    for (int64_t d = 0; d < width; d += kLanes) store(s.out + r * s.stride + d, zero());
  }
}

void mergeStates(const RowStates& to, const RowStates& from, int64_t rows, int64_t width) {
  for (int64_t r = 0; r < rows; ++r) {
    const float max = to.max[r] > from.max[r] ? to.max[r] : from.max[r];
    const float base = softmaxBase(max);
    const float a = exp2One(to.max[r] - base), b = exp2One(from.max[r] - base);
    if (to.statistics)
      mergeStatistics(to.statistics[r], to.sum[r], to.max[r] - base, a, from.statistics[r], from.sum[r],
                      from.max[r] - base, b);
    to.max[r] = max;
    to.sum[r] = to.sum[r] * a + from.sum[r] * b;
    float* o = to.out + r * to.stride;
    const float* p = from.out + r * from.stride;
    for (int64_t d = 0; d < width; d += kLanes) store(o + d, fma(load(o + d), splat(a), mul(load(p + d), splat(b))));
  }
}

// out = o / l, turned back where values are rotated (which changes the states), and LSE = (m + log2 l) ln 2, after a
// sink logit has joined l. No key seen: zeros and -Infinity.
void finishRows(const AttendProblem& p, int64_t batch, int64_t kvHead, int64_t firstRow, int64_t rows,
                const RowStates& s) {
  const int64_t group = p.heads / p.kvHeads;
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t query = (firstRow + r) / group, head = kvHead * group + (firstRow + r) % group;
    const int64_t row = (batch * p.queryTokens + query) * p.heads + head;
    float max = s.max[r], sum = s.sum[r], factor = 1, sinkLogit = 0;
    const bool seen = !(sum == 0);  // true for NaN
    if (p.sinkLogits && seen) {
      const float sink = p.sinkLogits[head] * kLog2e, joint = max > sink ? max : sink, base = softmaxBase(joint);
      factor = exp2One(max - base);
      sinkLogit = exp2One(sink - base);
      sum = sum * factor + sinkLogit;
      max = joint;
    }
    const Vec scale = splat(seen ? factor / sum : 0.f);
    if (p.arena.base && p.arena.layout.rotateValues) rotateRowBack(s.out + r * s.stride, p.valueDim);
    char* out = static_cast<char*>(p.out) + row * p.valueDim * elementBytes(p.outType);
    for (int64_t d = 0; d < p.valueDim; d += kLanes)
      storeAs(p.outType, out + d * elementBytes(p.outType), lanesLeft(d, p.valueDim),
              seen ? mul(load(s.out + r * s.stride + d), scale) : zero());
    if (s.statistics) finishStatistics(p.statistics, row, s.statistics[r], s.sum[r], factor, sinkLogit);
    if (p.lse) p.lse[row] = seen ? kLn2 * max + std::log(sum) : -kInfinity;
  }
}

}  // namespace
}  // namespace gqa
