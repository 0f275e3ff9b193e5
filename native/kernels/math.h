// exp2 and tanh over 16 lanes, accumulating nothing. Relative errors: exp2 below 1.7 u, tanh below 5 u, u = 2^-24.
#pragma once
#include <limits>

namespace gqa {
namespace {

constexpr float kLog2e = 1.44269504088896341f;
constexpr float kLn2 = 0.69314718055994531f;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// 2^x: x = n + f with |f| <= 1/2, a polynomial for 2^f that is exactly 1 at 0, then an exponent add. Below -125 the
// result is 0, which keeps denormals out of every multiplier, above 127 at least 2^127; exp2(-Infinity) = 0, NaN stays
// NaN.
GQA_INLINE Vec exp2(Vec x) {
  const Vec lowest = splat(-125.f);
  const Vec bounded = kPow2Saturates ? x : min(splat(127.f), max(lowest, x));
  const Vec n = roundEven(bounded);
  const Vec f = sub(bounded, n);
  Vec p = fma(splat(1.5353340e-4f), f, splat(1.3398871e-3f));
  p = fma(p, f, splat(9.6184378e-3f));
  p = fma(p, f, splat(5.5503324e-2f));
  p = fma(p, f, splat(2.4022648e-1f));
  p = fma(p, f, splat(6.9314718e-1f));
  p = fma(p, f, splat(1.f));
  return whereLess(x, lowest, zero(), timesPow2(p, n));
}

// tanh x = 1 - 2 / (e^2x + 1), with the odd polynomial of Cephes' tanhf below 0.625 where the difference would cancel.
GQA_INLINE Vec tanh(Vec x) {
  const Vec bounded = max(splat(-10.f), min(splat(10.f), x));
  const Vec square = mul(x, x);
  Vec p = fma(splat(-5.70498872745e-3f), square, splat(2.06390887954e-2f));
  p = fma(p, square, splat(-5.37397155531e-2f));
  p = fma(p, square, splat(1.33314422036e-1f));
  p = fma(p, square, splat(-3.33332819422e-1f));
  const Vec small = fma(mul(p, square), x, x);
  const Vec e = exp2(mul(bounded, splat(2 * kLog2e)));
  const Vec large = sub(splat(1.f), div(splat(2.f), add(e, splat(1.f))));
  return whereLess(square, splat(0.625f * 0.625f), small, large);
}

}  // namespace
}  // namespace gqa
