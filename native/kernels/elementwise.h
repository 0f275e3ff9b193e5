// Norms, RoPE, activation functions, addition and dtype conversion over f32 rows.
#pragma once
#include <cmath>

namespace gqa {
namespace {

void normaliseRows(const float* x, const Norm& norm, float* out, int64_t tokens, int64_t dim) {
  for (int64_t t = 0; t < tokens; ++t) normaliseRow(x + t * dim, norm, out + t * dim, dim);
}

GQA_INLINE void rotateHalves(float* a, float* b, const float* cos, const float* sin, int64_t pairs) {
  for (int64_t r = 0; r < pairs; r += kLanes) {
    const int64_t n = lanesLeft(r, pairs);
    const Vec x = loadFirst(a + r, n), y = loadFirst(b + r, n), c = loadFirst(cos + r, n), s = loadFirst(sin + r, n);
    storeFirst(a + r, n, sub(mul(x, c), mul(y, s)));
    storeFirst(b + r, n, fma(x, s, mul(y, c)));
  }
}

// (a, b) -> (a cos - b sin, a sin + b cos) over pairs (r, r + rotaryDim / 2), or (2r, 2r + 1) when interleaved.
void ropeTokens(const RopeProblem& p, int64_t firstToken, int64_t lastToken) {
  const int64_t pairs = p.rotaryDim / 2;
  for (int64_t t = firstToken; t < lastToken; ++t) {
    const float* cos = p.cos + t * pairs;
    const float* sin = p.sin + t * pairs;
    for (int64_t h = 0; h < p.heads; ++h) {
      float* x = p.x + (t * p.heads + h) * p.headDim;
      if (!p.interleaved) {
        rotateHalves(x, x + pairs, cos, sin, pairs);
        continue;
      }
      for (int64_t r = 0; r < pairs; ++r) {
        const float a = x[2 * r], b = x[2 * r + 1];
        x[2 * r] = a * cos[r] - b * sin[r];
        x[2 * r + 1] = a * sin[r] + b * cos[r];
      }
    }
  }
}

void activateRow(ActivationFunction f, const float* x, const float* second, float* out, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t n = lanesLeft(i, count);
    const Vec y = loadFirst(x + i, n);
    storeFirst(out + i, n, second ? gated(f, y, loadFirst(second + i, n)) : activated(f, y));
  }
}

void addRow(float* x, const float* y, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t n = lanesLeft(i, count);
    storeFirst(x + i, n, add(loadFirst(x + i, n), loadFirst(y + i, n)));
  }
}

void convertRow(const void* from, DType fromType, void* to, DType toType, int64_t count) {
  char* out = static_cast<char*>(to);
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t n = lanesLeft(i, count);
    storeAs(toType, out + i * elementBytes(toType), n, loadAs(fromType, elementAt(from, fromType, i), n));
  }
}

bool allBelowRow(const void* data, DType type, int64_t count, float limit) {
  const Vec bound = splat(limit), one = splat(1);
  Vec outside = zero();
  for (int64_t i = 0; i < count; i += kLanes) {
    const Vec x = loadAs(type, elementAt(data, type, i), lanesLeft(i, count));
    outside = add(outside, whereLess(max(x, sub(zero(), x)), bound, zero(), one));
  }
  return reduceAdd(outside) == 0;
}

}  // namespace
}  // namespace gqa
