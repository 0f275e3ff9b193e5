// Tile registers as AMX has them, eight of 16 rows of 16 words: C[r][v] += A[r] B[v] for r, v in {0, 1}, in pairs of
// bf16. This is the portable model: plain arrays, the semantics of the instructions bit for bit but for the payload of
// a NaN (Intel SDM vol. 2, LDTILECFG, TILELOADD, TDPBF16PS). simd/amx.h is the same type over the instructions.
#pragma once
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "../ops.h"

namespace gqa {
namespace {

// Rows of a tile, and 32-bit words of a row, at most. A row of B is a vector of a panel: 16 lanes of a pair each.
constexpr int64_t kTileSide = 16;
constexpr int64_t kTileRowBytes = kTileSide * 4;

// Rows of A[0] and A[1], and so of C[0][..] and C[1][..]; words of a row of A, which are the rows of B.
struct TileShape {
  int64_t rows[2];
  int64_t depth;

  GQA_INLINE bool equals(const TileShape& s) const {
    return rows[0] == s.rows[0] && rows[1] == s.rows[1] && depth == s.depth;
  }
};

struct ModelTiles {
  struct Tile {
    int64_t rows = 0, words = 0;
    uint32_t at[kTileSide][kTileSide];
  };
  Tile a[2], b[2], c[2][2];

  // Tiles are all zero after it. A shape of no rows is one of no tile: whoever uses it faults, here as there.
  void configure(const TileShape& shape) {
    for (int r = 0; r < 2; ++r) {
      reset(a[r], shape.rows[r], shape.rows[r] > 0 ? shape.depth : 0);
      reset(b[r], shape.depth, kTileSide);
      for (int v = 0; v < 2; ++v) reset(c[r][v], shape.rows[r], shape.rows[r] > 0 ? kTileSide : 0);
    }
  }
  void release() { configure({{0, 0}, 0}); }

  template <int r>
  void loadA(const void* base, int64_t stride) {
    load(a[r], base, stride);
  }
  template <int v>
  void loadB(const void* base, int64_t stride) {
    load(b[v], base, stride);
  }
  template <int r, int v>
  void loadC(const void* base, int64_t stride) {
    load(c[r][v], base, stride);
  }
  template <int r, int v>
  void zeroC() {
    reset(c[r][v], c[r][v].rows, c[r][v].words);
  }
  template <int r, int v>
  void storeC(void* base, int64_t stride) const {
    require(c[r][v].rows > 0);
    for (int64_t i = 0; i < c[r][v].rows; ++i)
      std::memcpy(static_cast<char*>(base) + i * stride, c[r][v].at[i], size_t(c[r][v].words) * 4);
  }
  template <int r, int v>
  void dotBf16() {
    dotBf16(c[r][v], a[r], b[v]);
  }

 private:
  static void require(bool condition) {
    if (!condition) std::abort();  // #UD
  }
  static void reset(Tile& t, int64_t rows, int64_t words) {
    require(rows >= 0 && rows <= kTileSide && words >= 0 && words <= kTileSide);
    t.rows = rows;
    t.words = words;
    std::memset(t.at, 0, sizeof t.at);
  }
  static void load(Tile& t, const void* base, int64_t stride) {
    require(t.rows > 0 && t.words > 0);
    std::memset(t.at, 0, sizeof t.at);
    for (int64_t i = 0; i < t.rows; ++i)
      std::memcpy(t.at[i], static_cast<const char*>(base) + i * stride, size_t(t.words) * 4);
  }

  // Denormals are zeros, on the way in and out.
  static float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.f, x) : x; }
  static float upper(uint32_t word) {
    float x;
    word &= 0xffff0000u;
    std::memcpy(&x, &word, 4);
    return flushed(x);
  }
  static float lower(uint32_t word) { return upper(word << 16); }

  // Even and odd steps are summed apart, from zero, and then added to C.
  static void dotBf16(Tile& c, const Tile& a, const Tile& b) {
    require(c.rows > 0 && c.rows == a.rows && c.words == b.words && a.words == b.rows);
    float bEven[kTileSide][kTileSide], bOdd[kTileSide][kTileSide];
    for (int64_t k = 0; k < b.rows; ++k)
      for (int64_t n = 0; n < kTileSide; ++n) {
        bEven[k][n] = lower(b.at[k][n]);
        bOdd[k][n] = upper(b.at[k][n]);
      }
    for (int64_t m = 0; m < c.rows; ++m) {
      float even[kTileSide] = {}, odd[kTileSide] = {};
      for (int64_t k = 0; k < a.words; ++k) {
        const float aEven = lower(a.at[m][k]), aOdd = upper(a.at[m][k]);
        for (int64_t n = 0; n < kTileSide; ++n) {
          even[n] = flushed(std::fma(aEven, bEven[k][n], even[n]));
          odd[n] = flushed(std::fma(aOdd, bOdd[k][n], odd[n]));
        }
      }
      for (int64_t n = 0; n < c.words; ++n) {
        float sum;
        std::memcpy(&sum, &c.at[m][n], 4);
        sum = flushed(flushed(sum) + flushed(even[n] + odd[n]));
        std::memcpy(&c.at[m][n], &sum, 4);
      }
    }
  }
};

}  // namespace
}  // namespace gqa
