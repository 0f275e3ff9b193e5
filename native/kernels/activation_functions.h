// Activation functions of MLPs over 16 lanes; ops_linear.h has their formulas. NaN stays NaN. Beside 1e-3 of |x|, and
// so where they matter, relative errors are below 5e-7.
#pragma once

namespace gqa {
namespace {

// x / (1 + e^-(slope x))
GQA_INLINE Vec sigmoidTimes(Vec x, Vec slope) {
  const Vec e = exp2(min(splat(127.f), mul(slope, splat(-kLog2e))));
  return div(x, add(splat(1.f), e));
}

GQA_INLINE Vec silu(Vec x) { return sigmoidTimes(x, x); }

// x Phi(x), Phi(x) = erfc(-x / sqrt 2) / 2. erfc(z) = t e^(-z^2 + p(t)), t = 1 / (1 + z / 2), for z >= 0 within 1.2e-7
// of itself (Numerical Recipes, erfcc): no cancellation in the tail on the left.
GQA_INLINE Vec gelu(Vec x) {
  const Vec size = max(x, sub(zero(), x)), z = min(splat(13.f), mul(size, splat(0.70710678118654752f)));
  const Vec t = div(splat(1.f), fma(z, splat(0.5f), splat(1.f)));
  Vec p = fma(splat(0.17087277f), t, splat(-0.82215223f));
  p = fma(p, t, splat(1.48851587f));
  p = fma(p, t, splat(-1.13520398f));
  p = fma(p, t, splat(0.27886807f));
  p = fma(p, t, splat(-0.18628806f));
  p = fma(p, t, splat(0.09678418f));
  p = fma(p, t, splat(0.37409196f));
  p = fma(p, t, splat(1.00002368f));
  p = fma(p, t, splat(-1.26551223f));
  const Vec tail = mul(mul(t, splat(0.5f)), exp2(mul(sub(p, mul(z, z)), splat(kLog2e))));
  return mul(x, whereLess(x, zero(), tail, sub(splat(1.f), tail)));
}

// x / 2 (1 + tanh u) = x / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715 x^3)
GQA_INLINE Vec geluTanh(Vec x) {
  const Vec bounded = max(splat(-16.f), min(splat(16.f), x)), square = mul(bounded, bounded);
  return sigmoidTimes(
      x, mul(bounded, fma(square, splat(2 * 0.79788456080286536f * 0.044715f), splat(2 * 0.79788456080286536f))));
}

GQA_INLINE Vec activated(ActivationFunction f, Vec x) {
  switch (f) {
    case ActivationFunction::gelu:
      return gelu(x);
    case ActivationFunction::geluTanh:
      return geluTanh(x);
    case ActivationFunction::relu:
      return max(zero(), x);
    default:
      return silu(x);
  }
}

GQA_INLINE Vec swigluOai(Vec gate, Vec up) {
  const Vec g = min(splat(7.f), gate), u = max(splat(-7.f), min(splat(7.f), up));
  return mul(sigmoidTimes(g, mul(g, splat(1.702f))), add(u, splat(1.f)));
}

GQA_INLINE Vec gated(ActivationFunction f, Vec gate, Vec up) {
  return f == ActivationFunction::swigluOai ? swigluOai(gate, up) : mul(activated(f, gate), up);
}

}  // namespace
}  // namespace gqa
