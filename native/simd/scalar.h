// The vector type without any instruction set: 16 f32 lanes in an array. It is also the definition of every operation;
// avx2.h, avx512.h and neon.h mean the same, up to the rounding of fma (one rounding where the hardware fuses).
#pragma once
#include <cstring>

#include "../ops.h"
#include "half.h"

namespace gqa {
namespace {

constexpr int kAccumulators = 6;

struct Vec {
  float v[kLanes];
};

#define GQA_LANES(expression)                           \
  Vec r;                                                \
  for (int i = 0; i < kLanes; ++i) r.v[i] = expression; \
  return r

GQA_INLINE Vec zero() { GQA_LANES(0.f); }
GQA_INLINE Vec splat(float x) { GQA_LANES(x); }
GQA_INLINE Vec load(const float* p) { GQA_LANES(p[i]); }
GQA_INLINE void store(float* p, Vec a) { std::memcpy(p, a.v, sizeof a.v); }
// Lanes [0, n), n <= 16; the others are 0 when loaded and untouched when stored.
GQA_INLINE Vec loadFirst(const float* p, int64_t n) { GQA_LANES(i < n ? p[i] : 0.f); }
GQA_INLINE void storeFirst(float* p, int64_t n, Vec a) {
  for (int64_t i = 0; i < n; ++i) p[i] = a.v[i];
}

GQA_INLINE Vec add(Vec a, Vec b) { GQA_LANES(a.v[i] + b.v[i]); }
GQA_INLINE Vec sub(Vec a, Vec b) { GQA_LANES(a.v[i] - b.v[i]); }
GQA_INLINE Vec mul(Vec a, Vec b) { GQA_LANES(a.v[i] * b.v[i]); }
GQA_INLINE Vec div(Vec a, Vec b) { GQA_LANES(a.v[i] / b.v[i]); }
GQA_INLINE Vec fma(Vec a, Vec b, Vec c) { GQA_LANES(a.v[i] * b.v[i] + c.v[i]); }  // a b + c
// The second operand where either is NaN: max(bound, x) keeps a NaN of x, max(x, bound) drops it.
GQA_INLINE Vec max(Vec a, Vec b) { GQA_LANES(a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
GQA_INLINE Vec min(Vec a, Vec b) { GQA_LANES(a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
// To the nearest integer, |a| < 2^22.
GQA_INLINE Vec roundEven(Vec a) {
  const float magic = 12582912.f;  // 1.5 * 2^23: its ulp is 1
  GQA_LANES((a.v[i] + magic) - magic);
}
// a * 2^n for integral n with normal a and result.
GQA_INLINE Vec timesPow2(Vec a, Vec n) {
  Vec r;
  for (int i = 0; i < kLanes; ++i) {
    const uint32_t steps = floatToBits(n.v[i] + 12582912.f) << 23;
    r.v[i] = a.v[i] == a.v[i] ? bitsToFloat(floatToBits(a.v[i]) + steps) : a.v[i];
  }
  return r;
}
// a < b ? yes : no; false for NaN.
GQA_INLINE Vec whereLess(Vec a, Vec b, Vec yes, Vec no) { GQA_LANES(a.v[i] < b.v[i] ? yes.v[i] : no.v[i]); }
// first <= lane < last ? yes : no.
GQA_INLINE Vec whereLane(int64_t first, int64_t last, Vec yes, Vec no) {
  GQA_LANES(i >= first && i < last ? yes.v[i] : no.v[i]);
}
// bytes[lane] != 0 ? yes : no; reads 16 bytes.
GQA_INLINE Vec whereByte(const uint8_t* bytes, Vec yes, Vec no) { GQA_LANES(bytes[i] ? yes.v[i] : no.v[i]); }
GQA_INLINE float reduceMax(Vec a) {
  float m = a.v[0];
  for (int i = 1; i < kLanes; ++i) m = a.v[i] > m ? a.v[i] : m;
  return m;
}
GQA_INLINE float reduceAdd(Vec a) {
  float s = 0;
  for (int i = 0; i < kLanes; ++i) s += a.v[i];
  return s;
}

// 16 elements widened, or rounded to nearest even.
GQA_INLINE Vec loadF16(const uint16_t* p) { GQA_LANES(f16ToF32(p[i])); }
GQA_INLINE void storeF16(uint16_t* p, Vec a) {
  for (int i = 0; i < kLanes; ++i) p[i] = f32ToF16(a.v[i]);
}
GQA_INLINE Vec loadBf16(const uint16_t* p) { GQA_LANES(bf16ToF32(p[i])); }
// The first and the second of 16 pairs.
GQA_INLINE Vec loadBf16Even(const uint16_t* pairs) { GQA_LANES(bf16ToF32(pairs[2 * i])); }
GQA_INLINE Vec loadBf16Odd(const uint16_t* pairs) { GQA_LANES(bf16ToF32(pairs[2 * i + 1])); }
GQA_INLINE void storeBf16(uint16_t* p, Vec a) {
  for (int i = 0; i < kLanes; ++i) p[i] = f32ToBf16(a.v[i]);
}

GQA_INLINE void prefetchLine(const char*) {}

// dst[c][r] = src[r * stride + c] for a 16 x 16 tile.
GQA_INLINE void transpose16(const float* src, int64_t stride, float* dst) {
  for (int c = 0; c < 16; ++c)
    for (int r = 0; r < 16; ++r) dst[c * 16 + r] = src[r * stride + c];
}

#undef GQA_LANES
}  // namespace
}  // namespace gqa
