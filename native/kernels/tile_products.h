// The microkernel on tiles: C[r][lane] = start + sum_l A[r][l] B[l][lane] in pairs of bf16, summed in f32 (tiles.h has
// the order). B is a panel of bf16 (layout.h), whose rows of 16 lanes are rows of a tile as they lie; A holds bf16
// pairs. Where A and B are f32 numbers split in two bf16 terms, high + low, the product is the sum of three:
//   A B = Alow Bhigh + Ahigh Bhigh + Ahigh Blow, what is left out being below 2^-16 of it.
#pragma once

namespace gqa {
namespace {

// Two tiles of rows share the loads of two tiles of lanes: one load a product.
constexpr int64_t kTileBlockRows = 2 * kTileSide;
// Below it products are so much emptier that vectors are faster.
constexpr int64_t kLeastDepth = kTileSide / 2;

// Pairs of steps that a tile takes at once of `pairs`: they are cut into equal runs, so that no tile reaches past the
// panel into memory that is not its own, which may hold NaN.
GQA_INLINE int64_t tileDepth(int64_t pairs) {
  int64_t runs = (pairs + kTileSide - 1) / kTileSide;
  while (runs > 1 && pairs % runs != 0) ++runs;
  return runs > 0 ? pairs / runs : 0;
}

GQA_INLINE TileShape tileShape(int64_t rows, int64_t depth) {
  return {{rows < kTileSide ? rows : kTileSide, rows < kTileSide ? 0 : rows - kTileSide}, depth};
}

// Steps that a product is summed over: A's rows and a panel's, from one run of steps on.
struct TileSpan {
  const char* a;      // the first row
  const char* b;      // the first row of the panel
  int64_t runs;       // of `depth` pairs of steps each
  const char* ahead;  // as much of another panel, to be prefetched; null for none
};

// Distances in bytes.
struct TileArgs {
  const TileSpan* spans;
  int64_t spanCount;
  int64_t aRow, aRun, aTile;   // between rows of a tile, runs of steps, tiles of 16 rows
  int64_t bRow;                // between rows of the panel
  float* c;                    // vectors are neighbours
  int64_t cRow;                // between rows of C
  bool given;                  // C is added to; else it starts at zero
  int64_t aLow = 0, bLow = 0;  // from the high terms to the low ones, where they are split
  int64_t substream = 0;       // a row of B's part of the panel ahead
};

// The lines of the panel ahead, as many as this one's, in as many substreams as a tile of B has rows (see Ahead).
GQA_INLINE void fetchAhead(const char* tile, int64_t substream, int64_t depth) {
  for (int64_t i = 0; i < depth; ++i) prefetchLine(tile + i * substream);
}

template <int R, int V>
GQA_INLINE void startTiles(Tiles& t, const TileArgs& p, char* c) {
  if (!p.given) {
    t.zeroC<0, 0>();
    if constexpr (V > 1) t.zeroC<0, 1>();
    if constexpr (R > 1) t.zeroC<1, 0>();
    if constexpr (R > 1 && V > 1) t.zeroC<1, 1>();
    return;
  }
  t.loadC<0, 0>(c, p.cRow);
  if constexpr (V > 1) t.loadC<0, 1>(c + kTileRowBytes, p.cRow);
  c += kTileSide * p.cRow;
  if constexpr (R > 1) t.loadC<1, 0>(c, p.cRow);
  if constexpr (R > 1 && V > 1) t.loadC<1, 1>(c + kTileRowBytes, p.cRow);
}

template <int R, int V>
GQA_INLINE void storeTiles(const Tiles& t, const TileArgs& p, char* c) {
  t.storeC<0, 0>(c, p.cRow);
  if constexpr (V > 1) t.storeC<0, 1>(c + kTileRowBytes, p.cRow);
  c += kTileSide * p.cRow;
  if constexpr (R > 1) t.storeC<1, 0>(c, p.cRow);
  if constexpr (R > 1 && V > 1) t.storeC<1, 1>(c + kTileRowBytes, p.cRow);
}

template <int V>
GQA_INLINE void loadTilesB(Tiles& t, const TileArgs& p, const char* b) {
  t.loadB<0>(b, p.bRow);
  if constexpr (V > 1) t.loadB<1>(b + kTileRowBytes, p.bRow);
}

// C += A B with the tiles of B that are loaded, and those of A at `a`.
template <int R, int V>
GQA_INLINE void addProducts(Tiles& t, const TileArgs& p, const char* a) {
  t.loadA<0>(a, p.aRow);
  t.dotBf16<0, 0>();
  if constexpr (V > 1) t.dotBf16<0, 1>();
  if constexpr (R > 1) {
    t.loadA<1>(a + p.aTile, p.aRow);
    t.dotBf16<1, 0>();
    if constexpr (V > 1) t.dotBf16<1, 1>();
  }
}

// C += A B with the tiles of A and B that are loaded.
template <int R, int V>
GQA_INLINE void addProducts(Tiles& t) {
  t.dotBf16<0, 0>();
  if constexpr (V > 1) t.dotBf16<0, 1>();
  if constexpr (R > 1) t.dotBf16<1, 0>();
  if constexpr (R > 1 && V > 1) t.dotBf16<1, 1>();
}

// R tiles of rows by V of lanes, from vector `first` of the panel on.
template <bool kSplit, int R, int V>
GQA_NOINLINE void tileBlock(Tiles& t, const TileArgs& p, int64_t depth, int64_t first) {
  char* c = reinterpret_cast<char*>(p.c + first * kLanes);
  startTiles<R, V>(t, p, c);
  for (const TileSpan* span = p.spans; span < p.spans + p.spanCount; ++span) {
    const char* a = span->a;
    const char* b = span->b + first * kTileRowBytes;
    const char* ahead = span->ahead ? span->ahead + first * span->runs * kTileRowBytes : nullptr;
    for (int64_t run = 0; run < span->runs; ++run, a += p.aRun, b += depth * p.bRow) {
      loadTilesB<V>(t, p, b);
      if (ahead)
        for (int64_t v = 0; v < V; ++v, ahead += kTileRowBytes) fetchAhead(ahead, p.substream, depth);
      if (kSplit) addProducts<R, V>(t, p, a + p.aLow);
      addProducts<R, V>(t, p, a);
      if (kSplit) {
        loadTilesB<V>(t, p, b + p.bLow);
        addProducts<R, V>(t);
      }
    }
  }
  storeTiles<R, V>(t, p, c);
}

template <bool kSplit, int R>
GQA_INLINE void tileBlocks(Tiles& t, const TileArgs& p, int64_t depth, int64_t vectors) {
  int64_t v = 0;
  for (; v + 2 <= vectors; v += 2) tileBlock<kSplit, R, 2>(t, p, depth, v);
  if (v < vectors) tileBlock<kSplit, R, 1>(t, p, depth, v);
}

// C[rows][vectors * 16] as above, within one panel; 1 <= rows <= kTileBlockRows.
template <bool kSplit>
void tileProduct(Tiles& t, const TileArgs& p, int64_t depth, int64_t rows, int64_t vectors) {
  t.configure(tileShape(rows, depth));
  if (rows > kTileSide)
    tileBlocks<kSplit, 2>(t, p, depth, vectors);
  else
    tileBlocks<kSplit, 1>(t, p, depth, vectors);
}

}  // namespace
}  // namespace gqa
