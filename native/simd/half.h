// f16 and bf16 bits to f32 and back, one element at a time: round to nearest even, NaN stays NaN, overflow is Infinity.
#pragma once
#include <cstring>

#include "../ops.h"

namespace gqa {
namespace {

GQA_INLINE float bitsToFloat(uint32_t bits) {
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}
GQA_INLINE uint32_t floatToBits(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  return bits;
}

GQA_INLINE float bf16ToF32(uint16_t h) { return bitsToFloat(uint32_t(h) << 16); }
GQA_INLINE uint16_t f32ToBf16(float f) {
  const uint32_t bits = floatToBits(f);
  if (f != f) return uint16_t((bits | 0x400000u) >> 16);
  return uint16_t((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

// Exponent and mantissa move up by 13 bits, then a multiplication rebiases the exponent, subnormals included.
GQA_INLINE float f16ToF32(uint16_t h) {
  const uint32_t sign = uint32_t(h & 0x8000u) << 16, rest = uint32_t(h & 0x7fffu) << 13;
  const float magnitude = bitsToFloat(rest) * 5.192296858534828e33f;  // 2^112
  const uint32_t bits = rest >= 0x0f800000u ? rest | 0x7f800000u : floatToBits(magnitude);
  return bitsToFloat(sign | bits);
}
GQA_INLINE uint16_t f32ToF16(float f) {
  const uint32_t bits = floatToBits(f), sign = (bits >> 16) & 0x8000u, rest = bits & 0x7fffffffu;
  if (rest > 0x7f800000u) return uint16_t(sign | 0x7e00u | ((rest >> 13) & 0x3ffu));
  if (rest >= 0x477ff000u) return uint16_t(sign | 0x7c00u);  // 65520 and above round to Infinity
  if (rest < 0x38800000u) {  // below 2^-14: adding 0.5 leaves the subnormal in the last bits
    const uint32_t sum = floatToBits(bitsToFloat(rest) + 0.5f);
    return uint16_t(sign | (sum - 0x3f000000u));
  }
  return uint16_t(sign | ((rest + 0xfffu + ((rest >> 13) & 1) - 0x38000000u) >> 13));
}

}  // namespace
}  // namespace gqa
