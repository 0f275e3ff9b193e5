// The vector type of NEON (any aarch64): 16 f32 lanes in four registers. See scalar.h for what each operation means.
// With the dot product extension (target neondot) and BF16 (neonbf16), dot products of bytes and of bf16 are single
// instructions. Arithmetic in f16 is not used: sums are f32, and conversion is in every aarch64.
#pragma once
#include <arm_neon.h>

#include <cmath>

#include "../ops.h"

namespace gqa {
namespace {

// 24 of 32 registers, four to a Vec.
constexpr int kAccumulators = 6;

struct Vec {
  float32x4_t q[4];
};

#define GQA_EACH(expression)                       \
  Vec r;                                           \
  for (int i = 0; i < 4; ++i) r.q[i] = expression; \
  return r

GQA_INLINE Vec zero() { GQA_EACH(vdupq_n_f32(0)); }
GQA_INLINE Vec splat(float x) { GQA_EACH(vdupq_n_f32(x)); }
GQA_INLINE Vec load(const float* p) { GQA_EACH(vld1q_f32(p + 4 * i)); }
GQA_INLINE void store(float* p, Vec a) {
  for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, a.q[i]);
}
GQA_INLINE Vec loadFirst(const float* p, int64_t n) {
  float lanes[16] = {0};
  for (int64_t i = 0; i < n; ++i) lanes[i] = p[i];
  return load(lanes);
}
GQA_INLINE void storeFirst(float* p, int64_t n, Vec a) {
  float lanes[16];
  store(lanes, a);
  for (int64_t i = 0; i < n; ++i) p[i] = lanes[i];
}

GQA_INLINE Vec add(Vec a, Vec b) { GQA_EACH(vaddq_f32(a.q[i], b.q[i])); }
GQA_INLINE Vec sub(Vec a, Vec b) { GQA_EACH(vsubq_f32(a.q[i], b.q[i])); }
GQA_INLINE Vec mul(Vec a, Vec b) { GQA_EACH(vmulq_f32(a.q[i], b.q[i])); }
GQA_INLINE Vec div(Vec a, Vec b) { GQA_EACH(vdivq_f32(a.q[i], b.q[i])); }
GQA_INLINE Vec sqrt(Vec a) { GQA_EACH(vsqrtq_f32(a.q[i])); }
GQA_INLINE Vec fma(Vec a, Vec b, Vec c) { GQA_EACH(vfmaq_f32(c.q[i], a.q[i], b.q[i])); }
GQA_INLINE Vec max(Vec a, Vec b) { GQA_EACH(vbslq_f32(vcgtq_f32(a.q[i], b.q[i]), a.q[i], b.q[i])); }
GQA_INLINE Vec min(Vec a, Vec b) { GQA_EACH(vbslq_f32(vcltq_f32(a.q[i], b.q[i]), a.q[i], b.q[i])); }
GQA_INLINE Vec roundEven(Vec a) { GQA_EACH(vrndnq_f32(a.q[i])); }
constexpr bool kPow2Saturates = false;
GQA_INLINE Vec timesPow2(Vec a, Vec n) {
  // vcvtnq gives 0 for NaN, so a NaN keeps its bits.
  GQA_EACH(vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(a.q[i]), vshlq_n_s32(vcvtnq_s32_f32(n.q[i]), 23))));
}
template <int h>
GQA_INLINE Vec swapLanes(Vec a) {
  if (h >= 4) {
    GQA_EACH(a.q[i ^ (h / 4)]);
  }
  if (h == 1) {
    GQA_EACH(vrev64q_f32(a.q[i]));
  }
  GQA_EACH(vextq_f32(a.q[i], a.q[i], 2));
}
GQA_INLINE Vec whereLess(Vec a, Vec b, Vec yes, Vec no) {
  GQA_EACH(vbslq_f32(vcltq_f32(a.q[i], b.q[i]), yes.q[i], no.q[i]));
}
GQA_INLINE int32x4_t laneIndex(int i) {
  static const int32_t base[4] = {0, 1, 2, 3};
  return vaddq_s32(vld1q_s32(base), vdupq_n_s32(4 * i));
}
GQA_INLINE Vec whereLane(int64_t first, int64_t last, Vec yes, Vec no) {
  const int32x4_t lo = vdupq_n_s32(int32_t(first)), hi = vdupq_n_s32(int32_t(last));
  GQA_EACH(vbslq_f32(vandq_u32(vcgeq_s32(laneIndex(i), lo), vcltq_s32(laneIndex(i), hi)), yes.q[i], no.q[i]));
}
GQA_INLINE Vec whereByte(const uint8_t* bytes, Vec yes, Vec no) {
  const uint8x16_t b = vld1q_u8(bytes);
  const uint8x16_t seen = vtstq_u8(b, b);  // 0xff or 0
  const int16x8_t half[2] = {vmovl_s8(vget_low_s8(vreinterpretq_s8_u8(seen))),
                             vmovl_s8(vget_high_s8(vreinterpretq_s8_u8(seen)))};
  const int32x4_t wide[4] = {vmovl_s16(vget_low_s16(half[0])), vmovl_s16(vget_high_s16(half[0])),
                             vmovl_s16(vget_low_s16(half[1])), vmovl_s16(vget_high_s16(half[1]))};
  GQA_EACH(vbslq_f32(vreinterpretq_u32_s32(wide[i]), yes.q[i], no.q[i]));
}
GQA_INLINE bool anyLess(Vec a, Vec b) {
  uint32x4_t any = vcltq_f32(a.q[0], b.q[0]);
  for (int i = 1; i < 4; ++i) any = vorrq_u32(any, vcltq_f32(a.q[i], b.q[i]));
  return vmaxvq_u32(any) != 0;
}
// Compare and select, not vmaxvq: a NaN lane must not hide the others' maximum.
GQA_INLINE float reduceMax(Vec a) {
  float lanes[16];
  store(lanes, a);
  float m = lanes[0];
  for (int i = 1; i < 16; ++i) m = lanes[i] > m ? lanes[i] : m;
  return m;
}
GQA_INLINE float reduceAdd(Vec a) {
  return vaddvq_f32(vaddq_f32(vaddq_f32(a.q[0], a.q[1]), vaddq_f32(a.q[2], a.q[3])));
}

GQA_INLINE Vec loadF16(const uint16_t* p) { GQA_EACH(vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i)))); }
GQA_INLINE void storeF16(uint16_t* p, Vec a) {
  for (int i = 0; i < 4; ++i) vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(a.q[i])));
}
GQA_INLINE Vec loadBf16(const uint16_t* p) { GQA_EACH(vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16))); }
GQA_INLINE Vec loadBf16Even(const uint16_t* pairs) {
  GQA_EACH(vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_u16(vld1q_u16(pairs + 8 * i)), 16)));
}
GQA_INLINE Vec loadBf16Odd(const uint16_t* pairs) {
  GQA_EACH(vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_u16(vld1q_u16(pairs + 8 * i)), vdupq_n_u32(0xffff0000u))));
}
#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
GQA_INLINE void storeBf16(uint16_t* p, Vec a) {
  for (int i = 0; i < 4; i += 2) {
    const bfloat16x8_t halves = vcvtq_high_bf16_f32(vcvtq_low_bf16_f32(a.q[i]), a.q[i + 1]);
    vst1q_u16(p + 4 * i, vreinterpretq_u16_bf16(halves));
  }
}
#else
GQA_INLINE void storeBf16(uint16_t* p, Vec a) {
  for (int i = 0; i < 4; ++i) {
    const uint32x4_t bits = vreinterpretq_u32_f32(a.q[i]);
    const uint32x4_t lsb = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(lsb, vdupq_n_u32(0x7fff)));
    const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
    const uint32x4_t ordered = vceqq_f32(a.q[i], a.q[i]);
    vst1_u16(p + 4 * i, vshrn_n_u32(vbslq_u32(ordered, rounded, quiet), 16));
  }
}
#endif

struct IVec {
  int32x4_t q[4];
};

#define GQA_INTEGERS(expression)                   \
  IVec r;                                          \
  for (int i = 0; i < 4; ++i) r.q[i] = expression; \
  return r

GQA_INLINE int16x8_t pairs(int32x4_t a) { return vreinterpretq_s16_s32(a); }
GQA_INLINE IVec zeroI() { GQA_INTEGERS(vdupq_n_s32(0)); }
GQA_INLINE IVec splatI(int32_t x) { GQA_INTEGERS(vdupq_n_s32(x)); }
GQA_INLINE IVec loadI(const void* p) {
  GQA_INTEGERS(vreinterpretq_s32_u8(vld1q_u8(static_cast<const uint8_t*>(p) + 16 * i)));
}
GQA_INLINE void storeI(void* p, IVec a) {
  for (int i = 0; i < 4; ++i) vst1q_u8(static_cast<uint8_t*>(p) + 16 * i, vreinterpretq_u8_s32(a.q[i]));
}
GQA_INLINE IVec addI(IVec a, IVec b) { GQA_INTEGERS(vaddq_s32(a.q[i], b.q[i])); }
GQA_INLINE Vec toFloat(IVec a) { GQA_EACH(vcvtq_f32_s32(a.q[i])); }
// The first and the second numbers of two registers' pairs side by side, so that products widen into their lanes.
GQA_INLINE IVec dotPairs(IVec acc, IVec a, IVec b) {
  for (int i = 0; i < 4; i += 2) {
    const int16x8_t x = vuzp1q_s16(pairs(a.q[i]), pairs(a.q[i + 1])), y = vuzp1q_s16(pairs(b.q[i]), pairs(b.q[i + 1]));
    const int16x8_t z = vuzp2q_s16(pairs(a.q[i]), pairs(a.q[i + 1])), w = vuzp2q_s16(pairs(b.q[i]), pairs(b.q[i + 1]));
    acc.q[i] = vmlal_s16(vmlal_s16(acc.q[i], vget_low_s16(x), vget_low_s16(y)), vget_low_s16(z), vget_low_s16(w));
    acc.q[i + 1] = vmlal_high_s16(vmlal_high_s16(acc.q[i + 1], x, y), z, w);
  }
  return acc;
}
GQA_INLINE IVec oddBytes(IVec a) { GQA_INTEGERS(vreinterpretq_s32_s16(vshrq_n_s16(pairs(a.q[i]), 8))); }
GQA_INLINE IVec evenBytes(IVec a) {
  GQA_INTEGERS(vreinterpretq_s32_s16(vshrq_n_s16(vshlq_n_s16(pairs(a.q[i]), 8), 8)));
}
constexpr int32_t kByteOffset = 0;
GQA_INLINE int8x16_t bytes(int32x4_t a) { return vreinterpretq_s8_s32(a); }
GQA_INLINE uint8x16_t unsignedBytes(int32x4_t a) { return vreinterpretq_u8_s32(a); }
#if defined(__ARM_FEATURE_DOTPROD)
constexpr bool kDotBytes = true;
GQA_INLINE IVec dotBytes(IVec acc, IVec a, IVec b) { GQA_INTEGERS(vdotq_s32(acc.q[i], bytes(a.q[i]), bytes(b.q[i]))); }
GQA_INLINE IVec dotNibblesSigned(IVec acc, IVec nibbles, IVec s) { return dotBytes(acc, nibbles, s); }
GQA_INLINE IVec dotNibblesUnsigned(IVec acc, IVec nibbles, IVec u) {
  GQA_INTEGERS(vreinterpretq_s32_u32(
      vdotq_u32(vreinterpretq_u32_s32(acc.q[i]), unsignedBytes(nibbles.q[i]), unsignedBytes(u.q[i]))));
}
#else
constexpr bool kDotBytes = false;
GQA_INLINE IVec dotBytes(IVec acc, IVec a, IVec b) {
  return dotPairs(dotPairs(acc, evenBytes(a), evenBytes(b)), oddBytes(a), oddBytes(b));
}
// Two products of a nibble stay within 16 bits.
GQA_INLINE IVec dotNibblesSigned(IVec acc, IVec nibbles, IVec s) {
  for (int i = 0; i < 4; ++i) {
    const int8x16_t x = bytes(nibbles.q[i]), y = bytes(s.q[i]);
    const int16x8_t low = vmull_s8(vget_low_s8(x), vget_low_s8(y)), high = vmull_high_s8(x, y);
    acc.q[i] = vpadalq_s16(acc.q[i], vpaddq_s16(low, high));
  }
  return acc;
}
GQA_INLINE IVec dotNibblesUnsigned(IVec acc, IVec nibbles, IVec u) {
  for (int i = 0; i < 4; ++i) {
    const uint8x16_t x = unsignedBytes(nibbles.q[i]), y = unsignedBytes(u.q[i]);
    const uint16x8_t low = vmull_u8(vget_low_u8(x), vget_low_u8(y)), high = vmull_high_u8(x, y);
    acc.q[i] = vreinterpretq_s32_u32(vpadalq_u16(vreinterpretq_u32_s32(acc.q[i]), vpaddq_u16(low, high)));
  }
  return acc;
}
#endif
GQA_INLINE IVec lowNibbles(IVec a) { GQA_INTEGERS(vandq_s32(a.q[i], vdupq_n_s32(0x0f0f0f0f))); }
GQA_INLINE IVec highNibbles(IVec a) { GQA_INTEGERS(vreinterpretq_s32_u8(vshrq_n_u8(vreinterpretq_u8_s32(a.q[i]), 4))); }
GQA_INLINE IVec flipSigns(IVec a) { GQA_INTEGERS(veorq_s32(a.q[i], vdupq_n_s32(int32_t(0x80808080u)))); }
template <int n>
GQA_INLINE Vec byteToFloat(IVec a) {
  const int32x4_t left = vdupq_n_s32(24 - 8 * n);
  GQA_EACH(vcvtq_f32_s32(vshrq_n_s32(vshlq_s32(a.q[i], left), 24)));
}
template <int n>
GQA_INLINE Vec nibbleToFloat(IVec a) {
  const int32x4_t shift = vdupq_n_s32(-4 * n);
  GQA_EACH(vcvtq_f32_u32(vandq_u32(vshlq_u32(vreinterpretq_u32_s32(a.q[i]), shift), vdupq_n_u32(15))));
}
template <int n>
GQA_INLINE Vec unsignedByteToFloat(IVec a) {
  const int32x4_t shift = vdupq_n_s32(-8 * n);
  GQA_EACH(vcvtq_f32_u32(vandq_u32(vshlq_u32(vreinterpretq_u32_s32(a.q[i]), shift), vdupq_n_u32(255))));
}
GQA_INLINE IVec evenUnsigned(IVec a) { GQA_INTEGERS(vandq_s32(a.q[i], vdupq_n_s32(0x00ff00ff))); }
GQA_INLINE IVec oddUnsigned(IVec a) {
  GQA_INTEGERS(vreinterpretq_s32_u16(vshrq_n_u16(vreinterpretq_u16_s32(a.q[i]), 8)));
}
GQA_INLINE IVec joinBytes(const Vec (&a)[4]) {
  IVec r;
  for (int i = 0; i < 4; ++i) {
    const uint32x4_t low = vsliq_n_u32(vcvtnq_u32_f32(a[0].q[i]), vcvtnq_u32_f32(a[1].q[i]), 8);
    const uint32x4_t high = vsliq_n_u32(vcvtnq_u32_f32(a[2].q[i]), vcvtnq_u32_f32(a[3].q[i]), 8);
    r.q[i] = vreinterpretq_s32_u32(vsliq_n_u32(low, high, 16));
  }
  return r;
}
GQA_INLINE void storeI16(int16_t* p, Vec a) {
  for (int i = 0; i < 4; ++i) vst1_s16(p + 4 * i, vqmovn_s32(vcvtnq_s32_f32(a.q[i])));
}
GQA_INLINE void storeI8(int8_t* p, Vec a) {
  int16_t wide[kLanes];
  storeI16(wide, a);
  vst1q_s8(p, vcombine_s8(vqmovn_s16(vld1q_s16(wide)), vqmovn_s16(vld1q_s16(wide + 8))));
}
GQA_INLINE uint16x8_t packU16(float32x4_t a, float32x4_t b) {
  return vcombine_u16(vqmovn_u32(vcvtq_u32_f32(a)), vqmovn_u32(vcvtq_u32_f32(b)));
}
GQA_INLINE IVec packU8(const Vec (&a)[4]) {
  GQA_INTEGERS(vreinterpretq_s32_u8(
      vcombine_u8(vqmovn_u16(packU16(a[i].q[0], a[i].q[1])), vqmovn_u16(packU16(a[i].q[2], a[i].q[3])))));
}
GQA_INLINE void roundBf16(uint16_t* p, Vec a) { storeBf16(p, a); }
GQA_INLINE void roundBf16Pairs(uint16_t* p, Vec even, Vec odd) {
  uint16_t halves[2][kLanes];
  storeBf16(halves[0], even);
  storeBf16(halves[1], odd);
  for (int i = 0; i < kLanes; i += 8) vst2q_u16(p + 2 * i, {{vld1q_u16(halves[0] + i), vld1q_u16(halves[1] + i)}});
}
#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
constexpr bool kDotBf16 = true;
GQA_INLINE bfloat16x8_t bf16Pairs(int32x4_t a) { return vreinterpretq_bf16_s32(a); }
GQA_INLINE Vec dotBf16(Vec acc, IVec a, IVec b) {
  GQA_EACH(vbfdotq_f32(acc.q[i], bf16Pairs(a.q[i]), bf16Pairs(b.q[i])));
}
#else
constexpr bool kDotBf16 = false;
GQA_INLINE float32x4_t bf16Even(int32x4_t a) { return vreinterpretq_f32_s32(vshlq_n_s32(a, 16)); }
GQA_INLINE float32x4_t bf16Odd(int32x4_t a) {
  return vreinterpretq_f32_s32(vandq_s32(a, vdupq_n_s32(int32_t(0xffff0000u))));
}
GQA_INLINE Vec dotBf16(Vec acc, IVec a, IVec b) {
  GQA_EACH(vfmaq_f32(vfmaq_f32(acc.q[i], bf16Even(a.q[i]), bf16Even(b.q[i])), bf16Odd(a.q[i]), bf16Odd(b.q[i])));
}
#endif

GQA_INLINE void prefetchLine(const char* p) { __builtin_prefetch(p); }

GQA_INLINE void transpose16(const float* src, int64_t stride, float* dst) {
  for (int r = 0; r < 16; r += 4)
    for (int c = 0; c < 16; c += 4) {
      const float* p = src + r * stride + c;
      const float32x4x2_t a = vtrnq_f32(vld1q_f32(p), vld1q_f32(p + stride));
      const float32x4x2_t b = vtrnq_f32(vld1q_f32(p + 2 * stride), vld1q_f32(p + 3 * stride));
      float* d = dst + c * 16 + r;
      vst1q_f32(d, vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0])));
      vst1q_f32(d + 16, vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1])));
      vst1q_f32(d + 32, vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0])));
      vst1q_f32(d + 48, vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1])));
    }
}

#undef GQA_EACH
#undef GQA_INTEGERS
}  // namespace
}  // namespace gqa
