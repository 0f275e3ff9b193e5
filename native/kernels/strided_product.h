// The microkernel of products whose operands are plain rows of f32:
//   C[r][lane] (+)= sum_l A(r, l) B[l][lane],   A(r, l) = a[r * aRow + l * aStep],   accumulated in f32, l ascending.
// With the strides of A exchanged the same memory serves as its transpose: nothing is ever transposed for its sake.
#pragma once

namespace gqa {
namespace {

// Distances in floats. Rows of B and C are whole vectors.
struct StridedArgs {
  const float* a;
  int64_t aRow, aStep;
  const float* b;
  int64_t bStep;
  float* c;
  int64_t cRow;
  int64_t steps;
  bool add;  // to what C holds; else it starts at zero
};

// Rows [row, row + R), vectors [vector, vector + V).
template <int R, int V>
GQA_NOINLINE void stridedTile(const StridedArgs& t, int64_t row, int64_t vector) {
  float* c = t.c + row * t.cRow + vector * kLanes;
  Accumulators<R, V> acc;
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) acc.at[r][v] = t.add ? load(c + r * t.cRow + v * kLanes) : zero();

  const float* a = t.a + row * t.aRow;
  const float* b = t.b + vector * kLanes;
  const int64_t aRow = t.aRow, aStep = t.aStep, bStep = t.bStep;
  for (int64_t l = 0; l < t.steps; ++l, a += aStep, b += bStep) {
    Vec lanes[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) lanes[v] = load(b + v * kLanes);
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      const Vec x = splat(a[r * aRow]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc.at[r][v] = fma(x, lanes[v], acc.at[r][v]);
    }
  }

#pragma GCC unroll 6
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(c + r * t.cRow + v * kLanes, acc.at[r][v]);
}

template <int V>
void stridedColumns(const StridedArgs& t, int64_t rows, int64_t vector) {
  for (int64_t r = 0, n; r < rows; r += n) {
    n = subTile(rows - r);
    switch (n) {
      case 1:
        stridedTile<1, V>(t, r, vector);
        break;
      case 2:
        stridedTile<2, V>(t, r, vector);
        break;
      case 3:
        stridedTile<3, V>(t, r, vector);
        break;
      case 4:
        stridedTile<4, V>(t, r, vector);
        break;
      case 5:
        stridedTile<5, V>(t, r, vector);
        break;
      default:
        stridedTile<6, V>(t, r, vector);
    }
  }
}

// C[rows][vectors * 16]; vectors are split evenly, because few of them leave the multipliers waiting.
void stridedProduct(const StridedArgs& t, int64_t rows, int64_t vectors) {
  constexpr int kMost = tileVectors(kMaxTileRows);
  for (int64_t v = 0, n; v < vectors; v += n) {
    const int64_t left = vectors - v, passes = (left + kMost - 1) / kMost;
    n = (left + passes - 1) / passes;
    if constexpr (kMost > 1) {
      if (n == 4) stridedColumns<4>(t, rows, v);
      if (n == 3) stridedColumns<3>(t, rows, v);
      if (n == 2) stridedColumns<2>(t, rows, v);
    }
    if (n == 1) stridedColumns<1>(t, rows, v);
  }
}

}  // namespace
}  // namespace gqa
