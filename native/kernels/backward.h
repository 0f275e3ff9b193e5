// The transposition, and the backward twins of RMSNorm and SwiGLU, over f32 rows.
#pragma once

namespace gqa {
namespace {

// Tiles whose columns are written together: rows of `out` may lie a power of two apart, where a cache holds few of
// their lines, so that lines had better be whole when it gives them up.
constexpr int64_t kTransposeTiles = 4;

// out[c, r] = x[r, c] of a part of a matrix, by tiles of 16 x 16.
void transposePart(const float* x, float* out, int64_t rows, int64_t columns, int64_t firstRow, int64_t lastRow,
                   int64_t firstColumn, int64_t lastColumn) {
  alignas(64) float tiles[kTransposeTiles][kLanes * kLanes];
  for (int64_t c = firstColumn; c < lastColumn; c += kLanes)
    for (int64_t first = firstRow; first < lastRow; first += kTransposeTiles * kLanes) {
      const int64_t last = least(first + kTransposeTiles * kLanes, lastRow), width = lanesLeft(c, lastColumn);
      for (int64_t r = first; r < last; r += kLanes)
        transposeAs(DType::f32, reinterpret_cast<const char*>(x + r * columns + c), columns, lanesLeft(r, last), width,
                    tiles[(r - first) / kLanes]);
      for (int64_t i = 0; i < width; ++i)
        for (int64_t r = first; r < last; r += kLanes)
          storeFirst(out + (c + i) * rows + r, lanesLeft(r, last), load(tiles[(r - first) / kLanes] + i * kLanes));
    }
}

// gradX += r gradOut w - x r^3 mean(gradOut w x), r = 1 / sqrt(mean(x^2) + eps); gradWeight = sum of gradOut x r.
void rmsNormBackwardRows(const RmsNormBackwardProblem& p, int64_t first, int64_t last, float* gradWeight) {
  for (int64_t d = 0; gradWeight && d < p.dim; d += kLanes) storeFirst(gradWeight + d, lanesLeft(d, p.dim), zero());
  for (int64_t t = first; t < last; ++t) {
    const float* x = p.x + t * p.dim;
    const float* gradOut = p.gradOut + t * p.dim;
    float* gradX = p.gradX + t * p.dim;
    const float scale = rmsScale(x, p.dim, p.eps);
    Vec products = zero();
    for (int64_t d = 0; d < p.dim; d += kLanes) {
      const int64_t n = lanesLeft(d, p.dim);
      products = fma(mul(loadFirst(gradOut + d, n), loadFirst(p.weight + d, n)), loadFirst(x + d, n), products);
    }
    const Vec factor = splat(scale), along = splat(-scale * scale * scale * (reduceAdd(products) / float(p.dim)));
    for (int64_t d = 0; d < p.dim; d += kLanes) {
      const int64_t n = lanesLeft(d, p.dim);
      const Vec lanes = loadFirst(x + d, n), g = mul(loadFirst(gradOut + d, n), factor);
      const Vec through = fma(g, loadFirst(p.weight + d, n), mul(lanes, along));
      storeFirst(gradX + d, n, add(loadFirst(gradX + d, n), through));
      if (gradWeight) storeFirst(gradWeight + d, n, fma(g, lanes, loadFirst(gradWeight + d, n)));
    }
  }
}

// gradUp = gradOut silu(gate), gradGate = gradOut up s (1 + gate (1 - s)), s = 1 / (1 + e), 1 - s = e s, e = e^-gate.
void swigluBackwardRow(const float* gate, const float* up, const float* gradOut, float* gradGate, float* gradUp,
                       int64_t count) {
  const Vec one = splat(1);
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t n = lanesLeft(i, count);
    const Vec x = loadFirst(gate + i, n), y = loadFirst(up + i, n), g = loadFirst(gradOut + i, n);
    const Vec e = exp2(min(splat(127.f), mul(x, splat(-kLog2e)))), s = div(one, add(one, e));
    const Vec passed = mul(g, s);
    storeFirst(gradGate + i, n, mul(mul(passed, y), fma(x, mul(e, s), one)));
    storeFirst(gradUp + i, n, mul(passed, x));
  }
}

}  // namespace
}  // namespace gqa
