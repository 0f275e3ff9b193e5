// Queries as the whole numbers that meet quantised K (integer_products.h): 16 bits against q8_0, 8 against q4_1, a step
// per row and group of 32 dims.
#pragma once

namespace gqa {
namespace {

constexpr float kMost16 = 32767.f;

// The numbers of a query: 32-bit words of a group of 32, words that meet one word of K or V.
constexpr int64_t queryGroupWords(DType storage) { return storage == DType::q8_0 ? kGroup / 2 : kGroup / 4; }
constexpr int kPieces = 2;

// A query row: per group its words, in the order in which digits() takes K apart, then its step as a float, then its
// sum times the step.
constexpr int64_t queryGroupStride(DType storage) { return queryGroupWords(storage) + 2; }
GQA_INLINE int64_t integerQueryStride(DType storage, int64_t headDim) {
  return roundUp(roundUp(headDim, kGroup) / kGroup * queryGroupStride(storage), kLanes);
}

// NaN where a lane is NaN or infinite, else 0.
GQA_INLINE float notFinite(Vec sum) { return reduceAdd(mul(sum, zero())); }

// The numbers of a group in the order of digits<q8_0>: of four, the middle two change places.
GQA_INLINE void storeQueryPairs(int16_t* to, Vec a, Vec b) {
  int16_t numbers[kGroup];
  storeI16(numbers, a);
  storeI16(numbers + kLanes, b);
  for (int i = 0; i < kGroup; i += 4) {
    const int16_t four[4] = {numbers[i], numbers[i + 2], numbers[i + 1], numbers[i + 3]};
    std::memcpy(to + i, four, sizeof four);
  }
}

// query[row] from q[headDim] times `scale`.
GQA_INLINE void packIntegerQuery(DType storage, DType from, const char* q, int64_t headDim, float scale, float* query) {
  const int64_t groups = roundUp(headDim, kGroup) / kGroup;
  const float most = storage == DType::q8_0 ? kMost16 : 127.f;
  for (int64_t g = 0; g < groups; ++g, query += queryGroupStride(storage)) {
    const int64_t d = g * kGroup, left = headDim - d;
    const Vec a = loadAs(from, elementAt(q, from, d), left < kLanes ? left : kLanes);
    const Vec b = left > kLanes ? loadAs(from, elementAt(q, from, d + kLanes), lanesLeft(d + kLanes, headDim)) : zero();
    const float highest = reduceMax(max(max(a, sub(zero(), a)), max(b, sub(zero(), b))));
    const Vec inverse = splat(highest > 0 ? most / highest : 0.f);
    const Vec x = roundEven(mul(a, inverse)), y = roundEven(mul(b, inverse));
    if (storage == DType::q8_0) {
      storeQueryPairs(reinterpret_cast<int16_t*>(query), x, y);
    } else {
      storeI8(reinterpret_cast<int8_t*>(query), x);
      storeI8(reinterpret_cast<int8_t*>(query) + kLanes, y);
    }
    float* step = query + queryGroupWords(storage);
    step[0] = highest / most * scale + notFinite(add(mul(a, zero()), mul(b, zero())));
    step[1] = step[0] * reduceAdd(add(x, y));
  }
}

}  // namespace
}  // namespace gqa
