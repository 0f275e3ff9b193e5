// The step of AdamW, and the sum of squares by which gradients are clipped.
#pragma once

namespace gqa {
namespace {

// Elements [first, last); see AdamWArgs in contract-training.ts.
void adamWRange(const AdamWProblem& p, int64_t first, int64_t last) {
  const Vec scale = splat(float(p.gradientScale)), beta1 = splat(float(p.beta1)), beta2 = splat(float(p.beta2));
  const Vec fresh1 = splat(float(1 - p.beta1)), fresh2 = splat(float(1 - p.beta2));
  const Vec inverse1 = splat(float(1 / p.correction1)), inverse2 = splat(float(1 / p.correction2));
  const Vec eps = splat(float(p.eps)), decay = splat(float(p.decay)), rate = splat(float(-p.rate));
  for (int64_t i = first; i < last; i += kLanes) {
    const int64_t n = lanesLeft(i, last);
    const Vec w = loadFirst(p.weight + i, n), g = mul(loadFirst(p.gradient + i, n), scale);
    const Vec m = fma(beta1, loadFirst(p.m + i, n), mul(fresh1, g));
    const Vec v = fma(beta2, loadFirst(p.v + i, n), mul(fresh2, mul(g, g)));
    const Vec step = div(mul(m, inverse1), add(sqrt(mul(v, inverse2)), eps));
    storeFirst(p.m + i, n, m);
    storeFirst(p.v + i, n, v);
    storeFirst(p.weight + i, n, fma(rate, fma(decay, w, step), w));
  }
}

// In float64, 16 partial sums.
double sumSquaresOf(const float* x, int64_t count) {
  double sums[kLanes] = {0};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += double(x[i + lane]) * double(x[i + lane]);
  for (; i < count; ++i) sums[0] += double(x[i]) * double(x[i]);
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

}  // namespace
}  // namespace gqa
