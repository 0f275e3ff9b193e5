// The Hadamard rotation of keys and values, in place: P the largest power of two <= D, for h = 1, 2, 4 .. P / 2
//   (x[j], x[j + h]) -> (x[j] + x[j + h], x[j] - x[j + h]),    then times 1 / sqrt(P),
// on elements [0, P) and, where D > P, on [D - P, D) after that. It is orthogonal and spreads what one dim holds over
// all; each half is its own inverse. Stages keep their order, so that every backend stores the same bits.
#pragma once
#include <cmath>

namespace gqa {
namespace {

// Of a pair 1, 2, 4 or 8 lanes apart the first is added, the second subtracted.
alignas(64) constexpr float kPairSigns[4][kLanes] = {
    {1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1},
    {1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1},
    {1, 1, 1, 1, -1, -1, -1, -1, 1, 1, 1, 1, -1, -1, -1, -1},
    {1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1},
};

// The stages within a vector, h < span.
GQA_INLINE Vec rotateLanes(Vec x, int64_t span) {
  x = fma(x, load(kPairSigns[0]), swapLanes<1>(x));
  if (span > 2) x = fma(x, load(kPairSigns[1]), swapLanes<2>(x));
  if (span > 4) x = fma(x, load(kPairSigns[2]), swapLanes<4>(x));
  return span > 8 ? fma(x, load(kPairSigns[3]), swapLanes<8>(x)) : x;
}

// `span` elements, a power of two above 1.
GQA_INLINE void rotateSpan(float* x, int64_t span) {
  const Vec scale = splat(float(1 / std::sqrt(double(span))));
  if (span <= kLanes) return storeFirst(x, span, mul(rotateLanes(loadFirst(x, span), span), scale));
  for (float* p = x; p < x + span; p += kLanes) store(p, rotateLanes(load(p), kLanes));
  for (int64_t h = kLanes; h < span; h *= 2) {
    const Vec factor = 2 * h == span ? scale : splat(1.f);
    for (float* run = x; run < x + span; run += 2 * h)
      for (float* p = run; p < run + h; p += kLanes) {
        const Vec a = load(p), b = load(p + h);
        store(p, mul(add(a, b), factor));
        store(p + h, mul(sub(a, b), factor));
      }
  }
}

GQA_INLINE int64_t rotationSpan(int64_t dim) {
  int64_t span = 1;
  while (2 * span <= dim) span *= 2;
  return span;
}

GQA_INLINE void rotateRow(float* x, int64_t dim) {
  const int64_t span = rotationSpan(dim);
  if (span > 1) rotateSpan(x, span);
  if (span < dim) rotateSpan(x + dim - span, span);
}

GQA_INLINE void rotateRowBack(float* x, int64_t dim) {
  const int64_t span = rotationSpan(dim);
  if (span < dim) rotateSpan(x + dim - span, span);
  if (span > 1) rotateSpan(x, span);
}

}  // namespace
}  // namespace gqa
