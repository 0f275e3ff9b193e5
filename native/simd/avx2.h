// The vector type of AVX2 + FMA + F16C: 16 f32 lanes in two registers. See scalar.h for what each operation means.
#pragma once
#include <immintrin.h>

#include "../ops.h"

namespace gqa {
namespace {

// 12 of 16 registers, two to a Vec.
constexpr int kAccumulators = 6;

struct Vec {
  __m256 lo, hi;
};

GQA_INLINE Vec zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
GQA_INLINE Vec splat(float x) {
  const __m256 v = _mm256_set1_ps(x);
  return {v, v};
}
GQA_INLINE Vec load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
GQA_INLINE void store(float* p, Vec a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
// All ones where lane (0..7) < n.
GQA_INLINE __m256i firstLanes(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(int(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
GQA_INLINE Vec loadFirst(const float* p, int64_t n) {
  return {_mm256_maskload_ps(p, firstLanes(n)), _mm256_maskload_ps(p + 8, firstLanes(n - 8))};
}
GQA_INLINE void storeFirst(float* p, int64_t n, Vec a) {
  _mm256_maskstore_ps(p, firstLanes(n), a.lo);
  _mm256_maskstore_ps(p + 8, firstLanes(n - 8), a.hi);
}

GQA_INLINE Vec add(Vec a, Vec b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
GQA_INLINE Vec sub(Vec a, Vec b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
GQA_INLINE Vec mul(Vec a, Vec b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
GQA_INLINE Vec div(Vec a, Vec b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
GQA_INLINE Vec sqrt(Vec a) { return {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)}; }
GQA_INLINE Vec fma(Vec a, Vec b, Vec c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
GQA_INLINE Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
GQA_INLINE Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
GQA_INLINE Vec roundEven(Vec a) {
  constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.lo, mode), _mm256_round_ps(a.hi, mode)};
}
constexpr bool kPow2Saturates = false;
GQA_INLINE __m256 timesPow2(__m256 a, __m256 n) {
  const __m256i steps = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);  // 0 for NaN
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), steps));
}
GQA_INLINE Vec timesPow2(Vec a, Vec n) { return {timesPow2(a.lo, n.lo), timesPow2(a.hi, n.hi)}; }
GQA_INLINE __m256 swapHalves(__m256 a) { return _mm256_permute2f128_ps(a, a, 1); }
template <int h>
GQA_INLINE Vec swapLanes(Vec a) {
  if (h == 8) return {a.hi, a.lo};
  if (h == 4) return {swapHalves(a.lo), swapHalves(a.hi)};
  constexpr int order = h == 1 ? 0xb1 : 0x4e;
  return {_mm256_permute_ps(a.lo, order), _mm256_permute_ps(a.hi, order)};
}
GQA_INLINE Vec whereLess(Vec a, Vec b, Vec yes, Vec no) {
  return {_mm256_blendv_ps(no.lo, yes.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ)),
          _mm256_blendv_ps(no.hi, yes.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ))};
}
GQA_INLINE Vec whereLane(int64_t first, int64_t last, Vec yes, Vec no) {
  const __m256i lo = _mm256_andnot_si256(firstLanes(first), firstLanes(last));
  const __m256i hi = _mm256_andnot_si256(firstLanes(first - 8), firstLanes(last - 8));
  return {_mm256_blendv_ps(no.lo, yes.lo, _mm256_castsi256_ps(lo)),
          _mm256_blendv_ps(no.hi, yes.hi, _mm256_castsi256_ps(hi))};
}
GQA_INLINE __m256 whereByte(const uint8_t* bytes, __m256 yes, __m256 no) {
  const __m256i b = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes)));
  const __m256i hidden = _mm256_cmpeq_epi32(b, _mm256_setzero_si256());
  return _mm256_blendv_ps(yes, no, _mm256_castsi256_ps(hidden));
}
GQA_INLINE Vec whereByte(const uint8_t* bytes, Vec yes, Vec no) {
  return {whereByte(bytes, yes.lo, no.lo), whereByte(bytes + 8, yes.hi, no.hi)};
}
GQA_INLINE bool anyLess(Vec a, Vec b) {
  const __m256 lo = _mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ), hi = _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ);
  return _mm256_movemask_ps(_mm256_or_ps(lo, hi)) != 0;
}
GQA_INLINE float reduceMax(Vec a) {
  const __m256 m = _mm256_max_ps(a.lo, a.hi);
  __m128 x = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
GQA_INLINE float reduceAdd(Vec a) {
  const __m256 s = _mm256_add_ps(a.lo, a.hi);
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}

GQA_INLINE __m256i load16Bytes32(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
GQA_INLINE __m128i load8Halves(const uint16_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
GQA_INLINE Vec loadF16(const uint16_t* p) {
  return {_mm256_cvtph_ps(load8Halves(p)), _mm256_cvtph_ps(load8Halves(p + 8))};
}
GQA_INLINE void storeF16(uint16_t* p, Vec a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a.lo, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(a.hi, _MM_FROUND_TO_NEAREST_INT));
}
GQA_INLINE __m256 widenBf16(__m128i h) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16)); }
GQA_INLINE Vec loadBf16(const uint16_t* p) { return {widenBf16(load8Halves(p)), widenBf16(load8Halves(p + 8))}; }
GQA_INLINE Vec loadBf16Even(const uint16_t* pairs) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(load16Bytes32(pairs), 16)),
          _mm256_castsi256_ps(_mm256_slli_epi32(load16Bytes32(pairs + 16), 16))};
}
GQA_INLINE Vec loadBf16Odd(const uint16_t* pairs) {
  const __m256i high = _mm256_set1_epi32(int(0xffff0000u));
  return {_mm256_castsi256_ps(_mm256_and_si256(load16Bytes32(pairs), high)),
          _mm256_castsi256_ps(_mm256_and_si256(load16Bytes32(pairs + 16), high))};
}
// The bf16 bits in the low half of each dword.
GQA_INLINE __m256i roundBf16(__m256 a) {
  const __m256i bits = _mm256_castps_si256(a);
  const __m256i lsb = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(lsb, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
  return _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
}
GQA_INLINE void storeBf16(uint16_t* p, Vec a) {
  const __m256i packed = _mm256_packus_epi32(roundBf16(a.lo), roundBf16(a.hi));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
}

struct IVec {
  __m256i lo, hi;
};

GQA_INLINE IVec zeroI() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
GQA_INLINE IVec splatI(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
GQA_INLINE IVec loadI(const void* p) { return {load16Bytes32(p), load16Bytes32(static_cast<const char*>(p) + 32)}; }
GQA_INLINE void storeI(void* p, IVec a) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), a.lo);
  _mm256_storeu_si256(static_cast<__m256i*>(p) + 1, a.hi);
}
GQA_INLINE IVec addI(IVec a, IVec b) { return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)}; }
GQA_INLINE IVec andI(IVec a, __m256i b) { return {_mm256_and_si256(a.lo, b), _mm256_and_si256(a.hi, b)}; }
GQA_INLINE Vec toFloat(IVec a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }
GQA_INLINE IVec dotPairs(IVec acc, IVec a, IVec b) {
  return addI(acc, {_mm256_madd_epi16(a.lo, b.lo), _mm256_madd_epi16(a.hi, b.hi)});
}
GQA_INLINE IVec oddBytes(IVec a) { return {_mm256_srai_epi16(a.lo, 8), _mm256_srai_epi16(a.hi, 8)}; }
GQA_INLINE IVec evenBytes(IVec a) { return oddBytes({_mm256_slli_epi16(a.lo, 8), _mm256_slli_epi16(a.hi, 8)}); }
constexpr int32_t kByteOffset = 128;
// By way of 16 bits: vpmaddubsw saturates.
GQA_INLINE IVec dotBytes(IVec acc, IVec u, IVec s) {
  const IVec odd = {_mm256_srli_epi16(u.lo, 8), _mm256_srli_epi16(u.hi, 8)};
  return dotPairs(dotPairs(acc, andI(u, _mm256_set1_epi16(255)), evenBytes(s)), odd, oddBytes(s));
}
// Two products of a nibble stay within 16 bits.
GQA_INLINE IVec dotNibblesSigned(IVec acc, IVec nibbles, IVec s) {
  const __m256i ones = _mm256_set1_epi16(1);
  return dotPairs(acc, {_mm256_maddubs_epi16(nibbles.lo, s.lo), _mm256_maddubs_epi16(nibbles.hi, s.hi)}, {ones, ones});
}
GQA_INLINE IVec dotNibblesUnsigned(IVec acc, IVec nibbles, IVec u) { return dotNibblesSigned(acc, u, nibbles); }
GQA_INLINE IVec lowNibbles(IVec a) { return andI(a, _mm256_set1_epi8(15)); }
GQA_INLINE IVec highNibbles(IVec a) { return lowNibbles({_mm256_srli_epi16(a.lo, 4), _mm256_srli_epi16(a.hi, 4)}); }
GQA_INLINE IVec flipSigns(IVec a) {
  const __m256i signs = _mm256_set1_epi8(-128);
  return {_mm256_xor_si256(a.lo, signs), _mm256_xor_si256(a.hi, signs)};
}
template <int n>
GQA_INLINE Vec byteToFloat(IVec a) {
  return toFloat({_mm256_srai_epi32(_mm256_slli_epi32(a.lo, 24 - 8 * n), 24),
                  _mm256_srai_epi32(_mm256_slli_epi32(a.hi, 24 - 8 * n), 24)});
}
template <int n>
GQA_INLINE Vec nibbleToFloat(IVec a) {
  return toFloat(andI({_mm256_srli_epi32(a.lo, 4 * n), _mm256_srli_epi32(a.hi, 4 * n)}, _mm256_set1_epi32(15)));
}
template <int n>
GQA_INLINE Vec unsignedByteToFloat(IVec a) {
  return toFloat(andI({_mm256_srli_epi32(a.lo, 8 * n), _mm256_srli_epi32(a.hi, 8 * n)}, _mm256_set1_epi32(255)));
}
GQA_INLINE IVec evenUnsigned(IVec a) { return andI(a, _mm256_set1_epi16(255)); }
GQA_INLINE IVec oddUnsigned(IVec a) { return {_mm256_srli_epi16(a.lo, 8), _mm256_srli_epi16(a.hi, 8)}; }
GQA_INLINE __m256i joinBytes(__m256 a, __m256 b, __m256 c, __m256 d) {
  const __m256i low = _mm256_or_si256(_mm256_cvtps_epi32(a), _mm256_slli_epi32(_mm256_cvtps_epi32(b), 8));
  const __m256i high = _mm256_or_si256(_mm256_cvtps_epi32(c), _mm256_slli_epi32(_mm256_cvtps_epi32(d), 8));
  return _mm256_or_si256(low, _mm256_slli_epi32(high, 16));
}
GQA_INLINE IVec joinBytes(const Vec (&a)[4]) {
  return {joinBytes(a[0].lo, a[1].lo, a[2].lo, a[3].lo), joinBytes(a[0].hi, a[1].hi, a[2].hi, a[3].hi)};
}
GQA_INLINE __m256i toI16(Vec a) {
  const __m256i packed = _mm256_packs_epi32(_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi));
  return _mm256_permute4x64_epi64(packed, 0xd8);
}
GQA_INLINE void storeI16(int16_t* p, Vec a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), toI16(a)); }
GQA_INLINE void storeI8(int8_t* p, Vec a) {
  const __m256i x = toI16(a);
  const __m128i packed = _mm_packs_epi16(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), packed);
}
GQA_INLINE __m256i packU8(Vec a, Vec b) {
  const __m256i x = _mm256_packus_epi32(_mm256_cvttps_epi32(a.lo), _mm256_cvttps_epi32(a.hi));
  const __m256i y = _mm256_packus_epi32(_mm256_cvttps_epi32(b.lo), _mm256_cvttps_epi32(b.hi));
  return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(x, y), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}
GQA_INLINE IVec packU8(const Vec (&a)[4]) { return {packU8(a[0], a[1]), packU8(a[2], a[3])}; }
constexpr bool kDotBytes = false, kDotBf16 = false;
GQA_INLINE void roundBf16(uint16_t* p, Vec a) { storeBf16(p, a); }
GQA_INLINE void roundBf16Pairs(uint16_t* p, Vec even, Vec odd) {
  storeI(p, {_mm256_or_si256(roundBf16(even.lo), _mm256_slli_epi32(roundBf16(odd.lo), 16)),
             _mm256_or_si256(roundBf16(even.hi), _mm256_slli_epi32(roundBf16(odd.hi), 16))});
}
GQA_INLINE Vec bf16Even(IVec a) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(a.lo, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(a.hi, 16))};
}
GQA_INLINE Vec bf16Odd(IVec a) {
  const IVec high = andI(a, _mm256_set1_epi32(int(0xffff0000u)));
  return {_mm256_castsi256_ps(high.lo), _mm256_castsi256_ps(high.hi)};
}
GQA_INLINE Vec dotBf16(Vec acc, IVec a, IVec b) {
  return fma(bf16Odd(a), bf16Odd(b), fma(bf16Even(a), bf16Even(b), acc));
}

GQA_INLINE void prefetchLine(const char* p) { _mm_prefetch(p, _MM_HINT_T0); }

// 4x4 transposes within 128-bit lanes: rows r and r + 4 share a register.
GQA_INLINE void transpose16(const float* src, int64_t stride, float* dst) {
  for (int half = 0; half < 16; half += 8)
    for (int c = 0; c < 16; c += 4) {
      __m256 r[4];
      for (int i = 0; i < 4; ++i) {
        const float* p = src + (half + i) * stride + c;
        r[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + 4 * stride), 1);
      }
      const __m256 a = _mm256_unpacklo_ps(r[0], r[1]), b = _mm256_unpackhi_ps(r[0], r[1]);
      const __m256 d = _mm256_unpacklo_ps(r[2], r[3]), e = _mm256_unpackhi_ps(r[2], r[3]);
      _mm256_storeu_ps(dst + (c + 0) * 16 + half, _mm256_shuffle_ps(a, d, 0x44));
      _mm256_storeu_ps(dst + (c + 1) * 16 + half, _mm256_shuffle_ps(a, d, 0xee));
      _mm256_storeu_ps(dst + (c + 2) * 16 + half, _mm256_shuffle_ps(b, e, 0x44));
      _mm256_storeu_ps(dst + (c + 3) * 16 + half, _mm256_shuffle_ps(b, e, 0xee));
    }
}

}  // namespace
}  // namespace gqa
