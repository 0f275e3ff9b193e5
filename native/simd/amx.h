// The tile registers of AMX (TILE, BF16), which belong to the thread: see tiles.h for what each operation means. Tile
// numbers are part of the instructions, hence the macros: C[r][v] is tile 2 r + v, A[r] 4 + r, B[v] 6 + v.
#pragma once
#include <immintrin.h>

#include "tiles.h"

namespace gqa {
namespace {

// What LDTILECFG reads.
struct alignas(64) AmxConfig {
  uint8_t palette, startRow, reserved[14];
  uint16_t rowBytes[16];
  uint8_t rows[16];
};

// Memory as the instructions see it is what the program has written so far: gcc's intrinsics do not say that they read
// and write it.
GQA_INLINE void settle(const void* memory) {
#if defined(_MSC_VER)
  (void)memory;
  _ReadWriteBarrier();
#else
  __asm__ volatile("" : : "r"(memory) : "memory");
#endif
}

struct AmxTiles {
  TileShape shape = {{0, 0}, 0};

  // Costs as much as some products and clears all tiles: only where the shape is another.
  GQA_INLINE void configure(const TileShape& wanted) {
    if (shape.equals(wanted)) return;
    shape = wanted;
    AmxConfig config = {};
    config.palette = 1;
    for (int r = 0; r < 2; ++r) {
      const bool used = wanted.rows[r] > 0;
      for (int v = 0; v < 2; ++v) setTile(config, 2 * r + v, wanted.rows[r], used ? kTileSide : 0);
      setTile(config, 4 + r, wanted.rows[r], used ? wanted.depth : 0);
      setTile(config, 6 + r, wanted.depth, kTileSide);
    }
    settle(&config);
    _tile_loadconfig(&config);
  }
  // Gives the registers back: the system then saves nothing of them at a switch.
  GQA_INLINE void release() {
    if (shape.depth > 0) _tile_release();
    shape = {{0, 0}, 0};
  }

  template <int r>
  GQA_INLINE void loadA(const void* base, int64_t stride) {
    settle(base);
    if constexpr (r == 0)
      _tile_loadd(4, base, stride);
    else
      _tile_loadd(5, base, stride);
  }
  template <int v>
  GQA_INLINE void loadB(const void* base, int64_t stride) {
    settle(base);
    if constexpr (v == 0)
      _tile_loadd(6, base, stride);
    else
      _tile_loadd(7, base, stride);
  }

// Of the four tiles of C, the one that the template arguments name.
#define GQA_TILE_OF_C(operation)    \
  if constexpr (r == 0 && v == 0) { \
    operation(0, 4, 6);             \
  } else if constexpr (r == 0) {    \
    operation(1, 4, 7);             \
  } else if constexpr (v == 0) {    \
    operation(2, 5, 6);             \
  } else {                          \
    operation(3, 5, 7);             \
  }
#define GQA_LOAD_C(c, a, b) _tile_loadd(c, base, stride)
#define GQA_STORE_C(c, a, b) _tile_stored(c, base, stride)
#define GQA_ZERO_C(c, a, b) _tile_zero(c)
#define GQA_DOT_C(c, a, b) _tile_dpbf16ps(c, a, b)

  template <int r, int v>
  GQA_INLINE void loadC(const void* base, int64_t stride) {
    settle(base);
    GQA_TILE_OF_C(GQA_LOAD_C)
  }
  template <int r, int v>
  GQA_INLINE void storeC(void* base, int64_t stride) const {
    settle(base);
    GQA_TILE_OF_C(GQA_STORE_C)
    settle(base);
  }
  template <int r, int v>
  GQA_INLINE void zeroC() {
    GQA_TILE_OF_C(GQA_ZERO_C)
  }
  template <int r, int v>
  GQA_INLINE void dotBf16() {
    GQA_TILE_OF_C(GQA_DOT_C)
  }

#undef GQA_TILE_OF_C
#undef GQA_LOAD_C
#undef GQA_STORE_C
#undef GQA_ZERO_C
#undef GQA_DOT_C

 private:
  GQA_INLINE static void setTile(AmxConfig& config, int tile, int64_t rows, int64_t words) {
    config.rows[tile] = uint8_t(rows);
    config.rowBytes[tile] = uint16_t(words * 4);
  }
};

}  // namespace
}  // namespace gqa
