// The vector type of AVX-512 (F, BW, VL, DQ): 16 f32 lanes in one register. See scalar.h for what each operation means.
// With VNNI and BF16, which the target avx512bf16 has, dot products of integers and of bf16 are single instructions.
#pragma once
#include <immintrin.h>

#include "../ops.h"

namespace gqa {
namespace {

// Accumulators the registers hold beside the operands: 24 of 32.
constexpr int kAccumulators = 24;

struct Vec {
  __m512 v;
};

GQA_INLINE Vec zero() { return {_mm512_setzero_ps()}; }
GQA_INLINE Vec splat(float x) { return {_mm512_set1_ps(x)}; }
GQA_INLINE Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
GQA_INLINE void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
GQA_INLINE __mmask16 firstLanes(int64_t n) { return __mmask16((1u << n) - 1); }
GQA_INLINE Vec loadFirst(const float* p, int64_t n) { return {_mm512_maskz_loadu_ps(firstLanes(n), p)}; }
GQA_INLINE void storeFirst(float* p, int64_t n, Vec a) { _mm512_mask_storeu_ps(p, firstLanes(n), a.v); }

GQA_INLINE Vec add(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
GQA_INLINE Vec sub(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
GQA_INLINE Vec mul(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
GQA_INLINE Vec div(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
GQA_INLINE Vec sqrt(Vec a) { return {_mm512_sqrt_ps(a.v)}; }
GQA_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
GQA_INLINE Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
GQA_INLINE Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
GQA_INLINE Vec roundEven(Vec a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
constexpr bool kPow2Saturates = true;
GQA_INLINE Vec timesPow2(Vec a, Vec n) { return {_mm512_scalef_ps(a.v, n.v)}; }
template <int h>
GQA_INLINE Vec swapLanes(Vec a) {
  if (h >= 4) return {_mm512_shuffle_f32x4(a.v, a.v, h == 4 ? 0xb1 : 0x4e)};
  return {_mm512_permute_ps(a.v, h == 1 ? 0xb1 : 0x4e)};
}
GQA_INLINE Vec whereLess(Vec a, Vec b, Vec yes, Vec no) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), no.v, yes.v)};
}
GQA_INLINE Vec whereLane(int64_t first, int64_t last, Vec yes, Vec no) {
  return {_mm512_mask_blend_ps(__mmask16(firstLanes(last) & ~firstLanes(first)), no.v, yes.v)};
}
GQA_INLINE Vec whereByte(const uint8_t* bytes, Vec yes, Vec no) {
  const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
  return {_mm512_mask_blend_ps(_mm_test_epi8_mask(b, b), no.v, yes.v)};
}
GQA_INLINE bool anyLess(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ) != 0; }
GQA_INLINE float reduceMax(Vec a) { return _mm512_reduce_max_ps(a.v); }
GQA_INLINE float reduceAdd(Vec a) { return _mm512_reduce_add_ps(a.v); }

GQA_INLINE Vec loadF16(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
GQA_INLINE void storeF16(uint16_t* p, Vec a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}
GQA_INLINE Vec loadBf16(const uint16_t* p) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}
GQA_INLINE Vec loadBf16Even(const uint16_t* pairs) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(pairs), 16))};
}
GQA_INLINE Vec loadBf16Odd(const uint16_t* pairs) {
  return {_mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(pairs), _mm512_set1_epi32(int(0xffff0000u))))};
}
// The bf16 bits in the low half of each dword.
GQA_INLINE __m512i bf16Words(Vec a) {
  const __m512i bits = _mm512_castps_si512(a.v);
  const __m512i lsb = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(lsb, _mm512_set1_epi32(0x7fff)));
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __m512i all = _mm512_mask_blend_epi32(_mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q), rounded, quiet);
  return _mm512_srli_epi32(all, 16);
}
GQA_INLINE void storeBf16(uint16_t* p, Vec a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(bf16Words(a)));
}

struct IVec {
  __m512i v;
};

GQA_INLINE IVec zeroI() { return {_mm512_setzero_si512()}; }
GQA_INLINE IVec splatI(int32_t x) { return {_mm512_set1_epi32(x)}; }
GQA_INLINE IVec loadI(const void* p) { return {_mm512_loadu_si512(p)}; }
GQA_INLINE void storeI(void* p, IVec a) { _mm512_storeu_si512(p, a.v); }
GQA_INLINE IVec addI(IVec a, IVec b) { return {_mm512_add_epi32(a.v, b.v)}; }
GQA_INLINE Vec toFloat(IVec a) { return {_mm512_cvtepi32_ps(a.v)}; }
GQA_INLINE IVec evenBytes(IVec a) { return {_mm512_srai_epi16(_mm512_slli_epi16(a.v, 8), 8)}; }
GQA_INLINE IVec oddBytes(IVec a) { return {_mm512_srai_epi16(a.v, 8)}; }
GQA_INLINE IVec lowNibbles(IVec a) { return {_mm512_and_si512(a.v, _mm512_set1_epi8(15))}; }
GQA_INLINE IVec highNibbles(IVec a) { return lowNibbles({_mm512_srli_epi16(a.v, 4)}); }
GQA_INLINE IVec flipSigns(IVec a) { return {_mm512_xor_si512(a.v, _mm512_set1_epi8(-128))}; }
template <int n>
GQA_INLINE Vec byteToFloat(IVec a) {
  return toFloat({_mm512_srai_epi32(_mm512_slli_epi32(a.v, 24 - 8 * n), 24)});
}
template <int n>
GQA_INLINE Vec nibbleToFloat(IVec a) {
  return toFloat({_mm512_and_si512(_mm512_srli_epi32(a.v, 4 * n), _mm512_set1_epi32(15))});
}
template <int n>
GQA_INLINE Vec unsignedByteToFloat(IVec a) {
  return toFloat({_mm512_and_si512(_mm512_srli_epi32(a.v, 8 * n), _mm512_set1_epi32(255))});
}
GQA_INLINE IVec evenUnsigned(IVec a) { return {_mm512_and_si512(a.v, _mm512_set1_epi16(255))}; }
GQA_INLINE IVec oddUnsigned(IVec a) { return {_mm512_srli_epi16(a.v, 8)}; }
GQA_INLINE IVec joinBytes(const Vec (&a)[4]) {
  const __m512i low = _mm512_or_si512(_mm512_cvtps_epi32(a[0].v), _mm512_slli_epi32(_mm512_cvtps_epi32(a[1].v), 8));
  const __m512i high = _mm512_or_si512(_mm512_cvtps_epi32(a[2].v), _mm512_slli_epi32(_mm512_cvtps_epi32(a[3].v), 8));
  return {_mm512_or_si512(low, _mm512_slli_epi32(high, 16))};
}
GQA_INLINE void storeI16(int16_t* p, Vec a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(a.v)));
}
GQA_INLINE void storeI8(int8_t* p, Vec a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(a.v)));
}
GQA_INLINE IVec packU8(const Vec (&a)[4]) {
  const __m512i x = _mm512_packus_epi32(_mm512_cvttps_epi32(a[0].v), _mm512_cvttps_epi32(a[1].v));
  const __m512i y = _mm512_packus_epi32(_mm512_cvttps_epi32(a[2].v), _mm512_cvttps_epi32(a[3].v));
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return {_mm512_permutexvar_epi32(order, _mm512_packus_epi16(x, y))};
}
constexpr int32_t kByteOffset = 128;
// Around the intrinsics of these instructions GCC copies every sum twice (12.2: 4.1 instead of 7.5 dot products a
// nanosecond on Zen 5, and it runs out of registers).
#if defined(__GNUC__) && !defined(__clang__)
#define GQA_DOT(instruction, intrinsic, sum, a, b) __asm__(instruction " %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b))
#else
#define GQA_DOT(instruction, intrinsic, sum, a, b) sum = intrinsic(sum, a, b)
#endif
#if defined(__AVX512VNNI__)
constexpr bool kDotBytes = true;
GQA_INLINE IVec dotPairs(IVec acc, IVec a, IVec b) {
  GQA_DOT("vpdpwssd", _mm512_dpwssd_epi32, acc.v, a.v, b.v);
  return acc;
}
GQA_INLINE IVec dotBytes(IVec acc, IVec u, IVec s) {
  GQA_DOT("vpdpbusd", _mm512_dpbusd_epi32, acc.v, u.v, s.v);
  return acc;
}
GQA_INLINE IVec dotNibblesSigned(IVec acc, IVec nibbles, IVec s) { return dotBytes(acc, nibbles, s); }
GQA_INLINE IVec dotNibblesUnsigned(IVec acc, IVec nibbles, IVec u) { return dotBytes(acc, u, nibbles); }
#else
constexpr bool kDotBytes = false;
GQA_INLINE IVec dotPairs(IVec acc, IVec a, IVec b) { return addI(acc, {_mm512_madd_epi16(a.v, b.v)}); }
// By way of 16 bits: vpmaddubsw saturates.
GQA_INLINE IVec dotBytes(IVec acc, IVec u, IVec s) {
  const IVec even = {_mm512_and_si512(u.v, _mm512_set1_epi16(255))}, odd = {_mm512_srli_epi16(u.v, 8)};
  return dotPairs(dotPairs(acc, even, evenBytes(s)), odd, oddBytes(s));
}
// Two products of a nibble stay within 16 bits.
GQA_INLINE IVec dotNibblesSigned(IVec acc, IVec nibbles, IVec s) {
  return dotPairs(acc, {_mm512_maddubs_epi16(nibbles.v, s.v)}, {_mm512_set1_epi16(1)});
}
GQA_INLINE IVec dotNibblesUnsigned(IVec acc, IVec nibbles, IVec u) { return dotNibblesSigned(acc, u, nibbles); }
#endif
#if defined(__AVX512BF16__)
constexpr bool kDotBf16 = true;
GQA_INLINE void roundBf16(uint16_t* p, Vec a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), __m256i(_mm512_cvtneps_pbh(a.v)));
}
GQA_INLINE void roundBf16Pairs(uint16_t* p, Vec even, Vec odd) {
  // Even ones in the lower half of the register, then each beside its odd one.
  alignas(64) static constexpr uint16_t kOrder[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                      8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512i halves = __m512i(_mm512_cvtne2ps_pbh(odd.v, even.v));
  _mm512_storeu_si512(p, _mm512_permutexvar_epi16(_mm512_load_si512(kOrder), halves));
}
GQA_INLINE Vec dotBf16(Vec acc, IVec a, IVec b) {
  GQA_DOT("vdpbf16ps", _mm512_dpbf16_ps, acc.v, __m512bh(a.v), __m512bh(b.v));
  return acc;
}
#else
constexpr bool kDotBf16 = false;
GQA_INLINE void roundBf16(uint16_t* p, Vec a) { storeBf16(p, a); }
GQA_INLINE void roundBf16Pairs(uint16_t* p, Vec even, Vec odd) {
  _mm512_storeu_si512(p, _mm512_or_si512(bf16Words(even), _mm512_slli_epi32(bf16Words(odd), 16)));
}
GQA_INLINE Vec dotBf16(Vec acc, IVec a, IVec b) {
  const __m512i high = _mm512_set1_epi32(int(0xffff0000u));
  const Vec even =
      fma({_mm512_castsi512_ps(_mm512_slli_epi32(a.v, 16))}, {_mm512_castsi512_ps(_mm512_slli_epi32(b.v, 16))}, acc);
  return fma({_mm512_castsi512_ps(_mm512_and_si512(a.v, high))}, {_mm512_castsi512_ps(_mm512_and_si512(b.v, high))},
             even);
}
#endif
#undef GQA_DOT

GQA_INLINE void prefetchLine(const char* p) { _mm_prefetch(p, _MM_HINT_T0); }

// Rows of 4 lanes a pass: 4x4 transposes within 128-bit lanes, four source rows gathered per register.
GQA_INLINE void transpose16(const float* src, int64_t stride, float* dst) {
  for (int c = 0; c < 16; c += 4) {
    __m512 r[4];
    for (int i = 0; i < 4; ++i) {
      const float* p = src + i * stride + c;
      __m512 x = _mm512_castps128_ps512(_mm_loadu_ps(p));
      x = _mm512_insertf32x4(x, _mm_loadu_ps(p + 4 * stride), 1);
      x = _mm512_insertf32x4(x, _mm_loadu_ps(p + 8 * stride), 2);
      r[i] = _mm512_insertf32x4(x, _mm_loadu_ps(p + 12 * stride), 3);
    }
    const __m512 a = _mm512_unpacklo_ps(r[0], r[1]), b = _mm512_unpackhi_ps(r[0], r[1]);
    const __m512 d = _mm512_unpacklo_ps(r[2], r[3]), e = _mm512_unpackhi_ps(r[2], r[3]);
    _mm512_storeu_ps(dst + (c + 0) * 16, _mm512_shuffle_ps(a, d, 0x44));
    _mm512_storeu_ps(dst + (c + 1) * 16, _mm512_shuffle_ps(a, d, 0xee));
    _mm512_storeu_ps(dst + (c + 2) * 16, _mm512_shuffle_ps(b, e, 0x44));
    _mm512_storeu_ps(dst + (c + 3) * 16, _mm512_shuffle_ps(b, e, 0xee));
  }
}

}  // namespace
}  // namespace gqa
