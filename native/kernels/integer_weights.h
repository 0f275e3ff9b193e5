// The weights of a tile as the whole numbers that meet quantised V: p d = step * w, a step per row and group of 32
// dims.
//   q8_0  16 bits, to the nearest
//   q4_1  8 bits. What rounding leaves over, p d - step w, is multiplied by the middle of V's digits instead of by the
//         digit itself: sums of weights stay exact, and only a digit's distance from the middle meets the error. To the
//         nearest a long tail of small weights would all be 0, so numbers are rounded down after adding a dither.
#pragma once

namespace gqa {
namespace {

// Groups of dims whose largest scales are found together, so that they do not wait for each other.
constexpr int64_t kScaleGroups = 16;

// The step of a row and group is the row's step, of its largest weight, times the group's largest scale.
struct IntegerWeights {
  float rowSteps[kTileRows], rowInverses[kTileRows];
  float groupSteps[kScaleGroups], groupInverses[kScaleGroups];
  float* words;  // [2][weightGroup()], rows from the tile's first column on
};

constexpr float kMost8 = 255.f;
// Smaller ones count as these: weights add nothing then that a float could show, and f16 has no smaller scales. Their
// inverses, times each other and kMost16, are no infinity.
constexpr float kLeastWeight = 1e-26f, kLeastScale = 5e-8f;

// Spread evenly over (0, 1): multiples of the golden ratio, in 1/256, plus 1/512.
struct Dither {
  float at[kScoreStride];
  constexpr Dither() : at() {
    for (int i = 0; i < kScoreStride; ++i) at[i] = float(i * 159 % 256) / 256 + 1.f / 512;
  }
};
constexpr Dither kDither;

// What V's minimums, and errors of weights, add to a row's dims, a number per group of 32, stays in 16 lanes as the
// sums do: a task ends with adding them up.
GQA_INLINE int64_t minimumGroups(const AttendProblem& p) {
  return p.valueType() == DType::q4_1 ? roundUp(p.valueDim, kGroup) / kGroup : 0;
}

GQA_INLINE void addMinimums(const AttendContext& c) {
  const int64_t groups = minimumGroups(c.problem), width = roundUp(c.problem.valueDim, kLanes);
  const float* lanes = c.minimums;
  for (int64_t r = 0; r < c.task.rows; ++r) {
    float* out = c.task.states.out + r * c.task.states.stride;
    for (int64_t d = 0; d < groups * kGroup; d += kGroup, lanes += kLanes) {
      const Vec total = splat(reduceAdd(load(lanes)));
      for (int64_t i = d; i < d + kGroup && i < width; i += kLanes) store(out + i, add(load(out + i), total));
    }
  }
}

// A weight that is not finite has spoilt its row's sum, and with it the result: it is ignored here.
GQA_INLINE void rowSteps(const AttendContext& c, const ScoreTile& t, float most, IntegerWeights& w) {
  for (int64_t r = 0; r < t.rows; ++r) {
    const float* p = c.weights + r * kScoreStride;
    Vec highest = splat(kLeastWeight);
    for (int64_t i = t.firstColumn; i < t.lastColumn; i += kLanes) highest = max(load(p + i), highest);
    const float largest = reduceMax(highest);
    w.rowSteps[r] = largest * (1 / most);
    w.rowInverses[r] = most / largest;
  }
}

// For the groups from that of vector v on.
GQA_INLINE void groupSteps(const KeyBlock& b, const ScoreTile& t, int64_t v, IntegerWeights& w) {
  const ValuePanels values = b.layout.quantisedValues();
  const int64_t groups = least(kScaleGroups, (values.vectors() - v) / 2);
  for (int64_t g = 0; g < groups; ++g) {
    const uint16_t* scales = reinterpret_cast<const uint16_t*>(b.v + values.scalesOffset(v + 2 * g));
    Vec highest = splat(kLeastScale);
    for (int64_t i = t.firstColumn; i < t.lastColumn; i += kLanes) highest = max(loadF16(scales + i), highest);
    w.groupSteps[g] = reduceMax(highest);
    w.groupInverses[g] = 1 / w.groupSteps[g];
  }
}

// One group of 32 dims: its scales, to its side of a panel's weights, and where its rows' minimums add up.
struct WeightGroup {
  const uint16_t* scales;
  float step, inverse;
  float* words;
  float* minimums;  // of the tile's first row
  int64_t minimumStride;
  const float* factors;
};

// N vectors of a row of weights over q8_0, times their scales, times `factor`.
template <int N>
GQA_INLINE void packRow(const float* p, const Vec (&scales)[N], Vec factor, float* to) {
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i)
    storeI16(reinterpret_cast<int16_t*>(to) + i * kLanes, mul(mul(load(p + i * kLanes), scales[i]), factor));
}

// The same over q4_1; returns what it adds to the row's minimums. middles[i] = m + kMiddleDigit d.
template <int N>
GQA_INLINE Vec packRow(const float* p, const Vec (&scales)[N], const Vec (&middles)[N], Vec factor, Vec step,
                       float* to) {
  Vec numbers[4], total = zero();
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    numbers[i] = zero();
    if (i >= N) continue;
    const Vec x = load(p + i * kLanes);
    numbers[i] = fma(mul(x, scales[i]), factor, load(kDither.at + i * kLanes));
    total = fma(x, middles[i], total);
  }
  const IVec bytes = packU8(numbers);
  storeI(to, bytes);
  const IVec sums = dotNibblesUnsigned(zeroI(), splatI(0x01010101), bytes);
  return fma(toFloat(sums), mul(step, splat(-kMiddleDigit)), total);
}

// The numbers of every row for a group; the tile's columns are N vectors.
template <DType T, int N>
GQA_INLINE void packWeightGroup(const AttendContext& c, const KeyBlock& b, const ScoreTile& t, const WeightGroup& g,
                                const IntegerWeights& w) {
  Vec scales[N], middles[N];
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i) {
    const uint16_t* halves = g.scales + t.firstColumn + i * kLanes;
    scales[i] = loadF16(halves);
    if (T == DType::q4_1) middles[i] = fma(scales[i], splat(kMiddleDigit), loadF16(halves + b.layout.blockTokens));
  }
  const Vec inverse = splat(g.inverse), step = splat(g.step);
  float* to = g.words;
  float* lanes = g.minimums;
  for (int64_t r = 0; r < t.rows; ++r, to += weightStride(T), lanes += g.minimumStride) {
    const float* p = c.weights + r * kScoreStride + t.firstColumn;
    const Vec factor = mul(inverse, splat(w.rowInverses[r]));
    if (T == DType::q8_0) {
      packRow<N>(p, scales, factor, to);
    } else {
      const Vec more = packRow<N>(p, scales, middles, factor, mul(step, splat(w.rowSteps[r])), to);
      store(lanes, g.factors ? fma(load(lanes), splat(g.factors[r]), more) : add(load(lanes), more));
    }
  }
}

template <DType T>
GQA_INLINE void packWeightGroup(const AttendContext& c, const KeyBlock& b, const ScoreTile& t, const WeightGroup& g,
                                const IntegerWeights& w) {
  const int64_t vectors = (t.lastColumn - t.firstColumn) / kLanes;
  if (vectors == 4) return packWeightGroup<T, 4>(c, b, t, g, w);
  if (vectors == 3) return packWeightGroup<T, 3>(c, b, t, g, w);
  if (vectors == 2) return packWeightGroup<T, 2>(c, b, t, g, w);
  packWeightGroup<T, 1>(c, b, t, g, w);
}

// For the groups of dims that vectors [v, v + vectors) of a panel hold.
GQA_INLINE void packIntegerWeights(const AttendContext& c, const KeyBlock& b, const ScoreTile& t, int64_t v,
                                   int64_t vectors, const float* factors, const IntegerWeights& w) {
  const ValuePanels values = b.layout.quantisedValues();
  const int64_t groups = minimumGroups(c.problem), tileRow = t.firstRow - c.task.firstRow;
  for (int64_t side = 0; 2 * side < vectors; ++side) {
    const int64_t group = v / 2 + side, known = group % kScaleGroups;
    const WeightGroup g = {reinterpret_cast<const uint16_t*>(b.v + values.scalesOffset(2 * group)),
                           w.groupSteps[known],
                           w.groupInverses[known],
                           w.words + side * weightGroup(values.dtype),
                           groups > 0 ? c.minimums + (tileRow * groups + group) * kLanes : nullptr,
                           groups * kLanes,
                           factors};
    if (values.dtype == DType::q8_0)
      packWeightGroup<DType::q8_0>(c, b, t, g, w);
    else
      packWeightGroup<DType::q4_1>(c, b, t, g, w);
  }
}

}  // namespace
}  // namespace gqa
