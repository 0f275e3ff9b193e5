// The vector type without any instruction set: 16 f32 lanes in an array. It is also the definition of every operation;
// avx2.h, avx512.h and neon.h mean the same, up to the rounding of fma (one rounding where the hardware fuses).
#pragma once
#include <cmath>
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
GQA_INLINE Vec sqrt(Vec a) { GQA_LANES(std::sqrt(a.v[i])); }
GQA_INLINE Vec fma(Vec a, Vec b, Vec c) { GQA_LANES(a.v[i] * b.v[i] + c.v[i]); }  // a b + c
// The second operand where either is NaN: max(bound, x) keeps a NaN of x, max(x, bound) drops it.
GQA_INLINE Vec max(Vec a, Vec b) { GQA_LANES(a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
GQA_INLINE Vec min(Vec a, Vec b) { GQA_LANES(a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
// To the nearest integer, |a| < 2^22.
GQA_INLINE Vec roundEven(Vec a) {
  const float magic = 12582912.f;  // 1.5 * 2^23: its ulp is 1
  GQA_LANES((a.v[i] + magic) - magic);
}
// timesPow2 takes any n and ends in 0 and Infinity where the others need a normal result.
constexpr bool kPow2Saturates = false;
// a * 2^n for integral n with normal a and result.
GQA_INLINE Vec timesPow2(Vec a, Vec n) {
  Vec r;
  for (int i = 0; i < kLanes; ++i) {
    const uint32_t steps = floatToBits(n.v[i] + 12582912.f) << 23;
    r.v[i] = a.v[i] == a.v[i] ? bitsToFloat(floatToBits(a.v[i]) + steps) : a.v[i];
  }
  return r;
}
// Lanes h apart change places, h = 1, 2, 4 or 8.
template <int h>
GQA_INLINE Vec swapLanes(Vec a) {
  GQA_LANES(a.v[i ^ h]);
}
// a < b ? yes : no; false for NaN.
GQA_INLINE Vec whereLess(Vec a, Vec b, Vec yes, Vec no) { GQA_LANES(a.v[i] < b.v[i] ? yes.v[i] : no.v[i]); }
// first <= lane < last ? yes : no.
GQA_INLINE Vec whereLane(int64_t first, int64_t last, Vec yes, Vec no) {
  GQA_LANES(i >= first && i < last ? yes.v[i] : no.v[i]);
}
// bytes[lane] != 0 ? yes : no; reads 16 bytes.
GQA_INLINE Vec whereByte(const uint8_t* bytes, Vec yes, Vec no) { GQA_LANES(bytes[i] ? yes.v[i] : no.v[i]); }
// a < b in some lane; false for NaN.
GQA_INLINE bool anyLess(Vec a, Vec b) {
  bool any = false;
  for (int i = 0; i < kLanes; ++i) any |= a.v[i] < b.v[i];
  return any;
}
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

// 16 lanes of 32 bits, read as one integer, two of 16 bits or four of 8, the lowest first.
struct IVec {
  int32_t v[kLanes];
};

#define GQA_INTEGERS(expression)                        \
  IVec r;                                               \
  for (int i = 0; i < kLanes; ++i) r.v[i] = expression; \
  return r

GQA_INLINE int32_t half(int32_t x, int i) { return int16_t(uint32_t(x) >> (16 * i)); }
GQA_INLINE int32_t byte(int32_t x, int i) { return int8_t(uint32_t(x) >> (8 * i)); }
GQA_INLINE int32_t unsignedByte(int32_t x, int i) { return uint8_t(uint32_t(x) >> (8 * i)); }

GQA_INLINE IVec zeroI() { GQA_INTEGERS(0); }
GQA_INLINE IVec splatI(int32_t x) { GQA_INTEGERS(x); }
GQA_INLINE IVec loadI(const void* p) {
  IVec r;
  std::memcpy(r.v, p, sizeof r.v);
  return r;
}
GQA_INLINE void storeI(void* p, IVec a) { std::memcpy(p, a.v, sizeof a.v); }
GQA_INLINE IVec addI(IVec a, IVec b) { GQA_INTEGERS(a.v[i] + b.v[i]); }
GQA_INLINE Vec toFloat(IVec a) { GQA_LANES(float(a.v[i])); }
// acc + the products of 16-bit pairs; no sum may leave 32 bits.
GQA_INLINE IVec dotPairs(IVec acc, IVec a, IVec b) {
  GQA_INTEGERS(acc.v[i] + half(a.v[i], 0) * half(b.v[i], 0) + half(a.v[i], 1) * half(b.v[i], 1));
}
// acc + the products of four bytes, s signed. u is the signed bytes plus kByteOffset: unsigned where that is 128.
constexpr int32_t kByteOffset = 128;
GQA_INLINE IVec dotBytes(IVec acc, IVec u, IVec s) {
  IVec r = acc;
  for (int i = 0; i < kLanes; ++i)
    for (int j = 0; j < 4; ++j) r.v[i] += unsignedByte(u.v[i], j) * byte(s.v[i], j);
  return r;
}
GQA_INLINE int32_t asPair(int32_t low, int32_t high) { return int32_t(uint32_t(low & 0xffff) | uint32_t(high) << 16); }
// Signed bytes (0, 2), and (1, 3), as 16-bit pairs.
GQA_INLINE IVec evenBytes(IVec a) { GQA_INTEGERS(asPair(byte(a.v[i], 0), byte(a.v[i], 2))); }
GQA_INLINE IVec oddBytes(IVec a) { GQA_INTEGERS(asPair(byte(a.v[i], 1), byte(a.v[i], 3))); }
// The low, and the high, nibble of each byte as a byte.
GQA_INLINE IVec lowNibbles(IVec a) { GQA_INTEGERS(a.v[i] & 0x0f0f0f0f); }
GQA_INLINE IVec highNibbles(IVec a) { GQA_INTEGERS(int32_t(uint32_t(a.v[i]) >> 4) & 0x0f0f0f0f); }
// acc + the products of four bytes: nibbles times signed, and times unsigned, bytes.
GQA_INLINE IVec dotNibblesSigned(IVec acc, IVec nibbles, IVec s) { return dotBytes(acc, nibbles, s); }
GQA_INLINE IVec dotNibblesUnsigned(IVec acc, IVec nibbles, IVec u) { return dotBytes(acc, u, nibbles); }
// Adds 128 to each byte: signed to unsigned, and back.
GQA_INLINE IVec flipSigns(IVec a) { GQA_INTEGERS(a.v[i] ^ int32_t(0x80808080u)); }
// Signed byte n, and unsigned nibble n, as a number.
template <int n>
GQA_INLINE Vec byteToFloat(IVec a) {
  GQA_LANES(float(byte(a.v[i], n)));
}
template <int n>
GQA_INLINE Vec nibbleToFloat(IVec a) {
  GQA_LANES(float(uint32_t(a.v[i]) >> (4 * n) & 15));
}
template <int n>
GQA_INLINE Vec unsignedByteToFloat(IVec a) {
  GQA_LANES(float(unsignedByte(a.v[i], n)));
}
// Unsigned bytes (0, 2), and (1, 3), as 16-bit pairs.
GQA_INLINE IVec evenUnsigned(IVec a) { GQA_INTEGERS(a.v[i] & 0x00ff00ff); }
GQA_INLINE IVec oddUnsigned(IVec a) { GQA_INTEGERS(int32_t(uint32_t(a.v[i]) >> 8) & 0x00ff00ff); }
// Whole numbers of [0, 255]: a[j] becomes byte j of each lane.
GQA_INLINE IVec joinBytes(const Vec (&a)[4]) {
  GQA_INTEGERS(
      int32_t(uint32_t(a[0].v[i]) | uint32_t(a[1].v[i]) << 8 | uint32_t(a[2].v[i]) << 16 | uint32_t(a[3].v[i]) << 24));
}
// To the nearest integers, ties to even; |a| <= 32767, 127.
GQA_INLINE void storeI16(int16_t* p, Vec a) {
  for (int i = 0; i < kLanes; ++i) p[i] = int16_t(roundEven(a).v[i]);
}
GQA_INLINE void storeI8(int8_t* p, Vec a) {
  for (int i = 0; i < kLanes; ++i) p[i] = int8_t(roundEven(a).v[i]);
}
// The bytes of 64 numbers of [0, 256] in their order, rounded towards zero; 256 makes 255, NaN anything.
GQA_INLINE IVec packU8(const Vec (&a)[4]) {
  uint8_t bytes[4 * kLanes];
  for (int i = 0; i < 4 * kLanes; ++i) {
    const float x = a[i / kLanes].v[i % kLanes];
    bytes[i] = x >= 0 ? uint8_t(x < 255 ? x : 255.f) : uint8_t(0);
  }
  return loadI(bytes);
}
// acc + the products of bf16 pairs; worth its while where kDotBf16 is true (those of bytes where kDotBytes is).
// Denormals may count as zeros there, and roundBf16, which is storeBf16 otherwise, may make zeros of them.
constexpr bool kDotBytes = false, kDotBf16 = false;
GQA_INLINE void roundBf16(uint16_t* p, Vec a) { storeBf16(p, a); }
// The same, as 16 pairs.
GQA_INLINE void roundBf16Pairs(uint16_t* p, Vec even, Vec odd) {
  for (int i = 0; i < kLanes; ++i) {
    p[2 * i] = f32ToBf16(even.v[i]);
    p[2 * i + 1] = f32ToBf16(odd.v[i]);
  }
}
GQA_INLINE Vec dotBf16(Vec acc, IVec a, IVec b) {
  GQA_LANES(acc.v[i] + bf16ToF32(uint16_t(a.v[i])) * bf16ToF32(uint16_t(b.v[i])) +
            bf16ToF32(uint16_t(uint32_t(a.v[i]) >> 16)) * bf16ToF32(uint16_t(uint32_t(b.v[i]) >> 16)));
}

GQA_INLINE void prefetchLine(const char*) {}

// dst[c][r] = src[r * stride + c] for a 16 x 16 tile. Pairs of bf16 pass as words: src may lie at any even address.
GQA_INLINE void transpose16(const float* src, int64_t stride, float* dst) {
  for (int c = 0; c < 16; ++c)
    for (int r = 0; r < 16; ++r) std::memcpy(dst + c * 16 + r, src + r * stride + c, sizeof(float));
}

#undef GQA_LANES
#undef GQA_INTEGERS
}  // namespace
}  // namespace gqa
