// AMX tiles: the permission to use them, and how fast they are. Where a core is shared they run at a quarter of their
// speed for milliseconds to seconds: whoever times multiplyTiles in short slices sees it.
#include "cpu.h"
#include "platform.h"
#include "runtime.h"

#if defined(__x86_64__) || defined(_M_X64)
#define GQA_TILES 1
#include <immintrin.h>
#endif
#if defined(_MSC_VER)
#define GQA_TILE_CODE
#else
// Here and not in targets/: nothing that other files share is compiled with it.
#define GQA_TILE_CODE __attribute__((target("amx-tile,amx-bf16")))
#endif

namespace gqa {

bool tilesGranted() {
  static const bool granted = cpuFeatures().amxTile && cpuFeatures().amxBf16 && requestTiles();
  return granted;
}

bool tilesUsable() {
#if defined(GQA_TILE_MODEL)
  return true;
#else
  return tilesGranted();
#endif
}

#if GQA_TILES

namespace {

// A tile as bf16 fills it, and 4 KiB pages of four tiles that the loads go through: half of the smallest L1 cache.
constexpr int kTileRows = 16, kTileRowBytes = 64, kTileBytes = kTileRows * kTileRowBytes, kPages = 4;
// 16 x 16 sums of 32 multiply-adds.
constexpr double kProductFlop = 16 * 16 * 32 * 2;

// What LDTILECFG reads (Intel SDM vol. 2).
struct alignas(64) TileConfig {
  uint8_t palette, startRow, reserved[14];
  uint16_t rowBytes[16];
  uint8_t rows[16];
};

struct alignas(4096) TilePages {
  char bytes[kPages * 4 * kTileBytes];
};

// gcc 12's _tile_loadconfig owns up to reading 8 bytes: the stores to the others would be dropped as dead.
void keepStores(const TileConfig* config) {
#if defined(_MSC_VER)
  (void)config;
#else
  __asm__ volatile("" : : "r"(config) : "memory");
#endif
}

}  // namespace

// Four accumulators, two tiles of each operand: the register blocking of a matrix product, one load a product.
GQA_TILE_CODE double multiplyTiles(int64_t iterations) {
  static const TilePages pages = {};
  TileConfig config = {};
  config.palette = 1;
  for (int tile = 0; tile < 8; ++tile) {
    config.rowBytes[tile] = kTileRowBytes;
    config.rows[tile] = kTileRows;
  }
  keepStores(&config);
  _tile_loadconfig(&config);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t i = 0; i < iterations; ++i) {
    const char* page = pages.bytes + i % kPages * 4 * kTileBytes;
    _tile_loadd(4, page, kTileRowBytes);
    _tile_loadd(6, page + kTileBytes, kTileRowBytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, page + 2 * kTileBytes, kTileRowBytes);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, page + 3 * kTileBytes, kTileRowBytes);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
  return double(iterations) * 4 * kProductFlop;
}

#else

double multiplyTiles(int64_t) { return 0; }

#endif

}  // namespace gqa
