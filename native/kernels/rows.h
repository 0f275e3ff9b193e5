// Rows of any float dtype to and from f32 lanes, tails included: nothing is read or written past the row.
#pragma once
#include <cstring>

namespace gqa {
namespace {

GQA_INLINE const char* elementAt(const void* base, DType type, int64_t index) {
  return static_cast<const char*>(base) + index * elementBytes(type);
}

// Lanes [0, n) of the row at p, 1 <= n <= 16, the others 0.
GQA_INLINE Vec loadAs(DType type, const char* p, int64_t n) {
  if (type == DType::f32) {
    const float* f = reinterpret_cast<const float*>(p);
    return n == kLanes ? load(f) : loadFirst(f, n);
  }
  const uint16_t* h = reinterpret_cast<const uint16_t*>(p);
  uint16_t tail[kLanes];
  if (n < kLanes) {
    std::memset(tail, 0, sizeof tail);
    std::memcpy(tail, h, size_t(n) * 2);
    h = tail;
  }
  return type == DType::f16 ? loadF16(h) : loadBf16(h);
}

GQA_INLINE void storeHalf(DType type, uint16_t* p, Vec a) {
  if (type == DType::f16) return storeF16(p, a);
  storeBf16(p, a);
}

GQA_INLINE void storeAs(DType type, char* p, int64_t n, Vec a) {
  if (type == DType::f32) {
    float* f = reinterpret_cast<float*>(p);
    return n == kLanes ? store(f, a) : storeFirst(f, n, a);
  }
  uint16_t* h = reinterpret_cast<uint16_t*>(p);
  if (n == kLanes) return storeHalf(type, h, a);
  uint16_t tail[kLanes];
  storeHalf(type, tail, a);
  std::memcpy(h, tail, size_t(n) * 2);
}

GQA_INLINE int64_t lanesLeft(int64_t done, int64_t total) { return total - done < kLanes ? total - done : kLanes; }

// tile[c][r] = row r, column c of a 16 x 16 piece: `rows` rows `stride` elements apart, `columns` wide, zeros beyond.
GQA_INLINE void transposeAs(DType type, const char* src, int64_t stride, int64_t rows, int64_t columns, float* tile) {
  if (type == DType::f32 && rows == kLanes && columns == kLanes)
    return transpose16(reinterpret_cast<const float*>(src), stride, tile);
  alignas(64) float widened[kLanes * kLanes];
  for (int64_t r = 0; r < kLanes; ++r)
    store(widened + r * kLanes, r < rows ? loadAs(type, elementAt(src, type, r * stride), columns) : zero());
  transpose16(widened, kLanes, tile);
}

}  // namespace
}  // namespace gqa
