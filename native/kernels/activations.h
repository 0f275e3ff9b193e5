// The input x of linear layers as their kernels read it. x may be normalised on the way. Its forms:
//   rows   f32 [tokens][columns], x itself where nothing normalises it;
//   pairs  bf16, rounded to nearest even, in the order of a panel of bf16 weights:
//          per tile of rows [columns / 2][row][2];
//   bytes  int8 with a scale per row and 32 columns, x = scale * q, scale = largest |x| / 127:
//          per tile and group [8][row][4] bytes, then f32 [row] scales, i32 [row] sums of q, f32 [row] scale * sum of
//          q;
//   digits the same three times a token, x = the sum of three such rows: integers of the group's largest |x| / 4.2e6,
//          that is 22 bits and a sign, cut into three digits of base 254, the highest first.
//   tiles  bf16 pairs for tile registers (tile_products.h): per 16 tokens [run of pairs][token][depth][2], so that
//          the rows of a tile are neighbours.
// Otherwise a tile is kTileTokens rows, the last fewer. A NaN or Infinity makes its group's scale NaN.
#pragma once
#include <cmath>

namespace gqa {
namespace {

GQA_INLINE float rmsScale(const float* x, int64_t dim, float eps) {
  Vec squares = zero();
  for (int64_t d = 0; d < dim; d += kLanes) {
    const Vec v = loadFirst(x + d, lanesLeft(d, dim));
    squares = fma(v, v, squares);
  }
  return 1 / std::sqrt(reduceAdd(squares) / float(dim) + eps);
}

GQA_INLINE void rmsNormRow(const float* x, const Norm& norm, float* out, int64_t dim) {
  const Vec scale = splat(rmsScale(x, dim, norm.eps));
  for (int64_t d = 0; d < dim; d += kLanes) {
    const int64_t n = lanesLeft(d, dim);
    storeFirst(out + d, n, mul(mul(loadFirst(x + d, n), scale), loadFirst(norm.weight + d, n)));
  }
}

// The variance is of what is left when the mean is taken out, as a difference of squares would cancel; by how much
// rounding had the mean off, the mean of that says.
void layerNormRow(const float* x, const Norm& norm, float* out, int64_t dim) {
  Vec sum = zero(), squares = zero(), rests = zero();
  for (int64_t d = 0; d < dim; d += kLanes) sum = add(sum, loadFirst(x + d, lanesLeft(d, dim)));
  const Vec mean = splat(reduceAdd(sum) / float(dim));
  for (int64_t d = 0; d < dim; d += kLanes) {
    const int64_t n = lanesLeft(d, dim);
    const Vec rest = whereLane(0, n, sub(loadFirst(x + d, n), mean), zero());
    squares = fma(rest, rest, squares);
    rests = add(rests, rest);
  }
  const float off = reduceAdd(rests) / float(dim), variance = reduceAdd(squares) / float(dim) - off * off;
  const Vec scale = splat(1 / std::sqrt((variance > 0 ? variance : 0) + norm.eps));
  for (int64_t d = 0; d < dim; d += kLanes) {
    const int64_t n = lanesLeft(d, dim);
    const Vec rest = mul(sub(sub(loadFirst(x + d, n), mean), splat(off)), scale);
    const Vec weight = loadFirst(norm.weight + d, n);
    storeFirst(out + d, n, norm.bias ? fma(rest, weight, loadFirst(norm.bias + d, n)) : mul(rest, weight));
  }
}

GQA_INLINE void normaliseRow(const float* x, const Norm& norm, float* out, int64_t dim) {
  if (norm.kind == NormKind::layer) return layerNormRow(x, norm, out, dim);
  rmsNormRow(x, norm, out, dim);
}

// Where a row's part of its tile begins, and the distance between its words, in words.
struct RowPlace {
  int32_t* words;
  int64_t rows;
};

GQA_INLINE RowPlace placeOf(const ActivationLayout& layout, void* base, int64_t row) {
  const int64_t first = row / kTileTokens * kTileTokens, left = layout.rows() - first;
  return {static_cast<int32_t*>(base) + first * layout.rowWords() + row - first,
          left < kTileTokens ? left : kTileTokens};
}

GQA_INLINE void packPairs(const float* x, int64_t columns, RowPlace to) {
  uint16_t bits[kLanes];
  for (int64_t l = 0; l < columns; l += kLanes) {
    const int64_t n = lanesLeft(l, columns);
    roundBf16(bits, loadFirst(x + l, n));
    for (int64_t i = 0; i < n; i += 2) {
      std::memcpy(to.words, bits + i, 4);
      to.words += to.rows;
    }
  }
}

GQA_INLINE void packTilePairs(const float* x, int64_t columns, int64_t token, void* base) {
  const int64_t pairs = (columns + 1) / 2, depth = tileDepth(pairs);
  uint16_t* to = static_cast<uint16_t*>(base) + 2 * (token / kTileSide * kTileSide * pairs + token % kTileSide * depth);
  uint16_t bits[kLanes];
  for (int64_t l = 0; l < columns; l += kLanes) {
    const int64_t n = lanesLeft(l, columns);
    roundBf16(bits, loadFirst(x + l, n));
    for (int64_t i = 0; i < n; i += 2) {
      const int64_t pair = (l + i) / 2;
      std::memcpy(to + 2 * (pair / depth * kTileSide * depth + pair % depth), bits + i, 4);
    }
  }
}

constexpr int kGroupVectors = kGroup / kLanes;

struct Group {
  Vec at[kGroupVectors];
};

// A group's values divided by `scale`, the largest by `most`; the scale is NaN where a value is not finite.
GQA_INLINE Group scaledGroup(const float* x, float most, float* scale) {
  Group g;
  Vec largest = zero(), finite = zero();
  for (int i = 0; i < kGroupVectors; ++i) {
    g.at[i] = load(x + i * kLanes);
    largest = max(largest, max(g.at[i], sub(zero(), g.at[i])));
    finite = fma(g.at[i], zero(), finite);
  }
  const float peak = reduceMax(largest);
  // The inverse of a tinier one would overflow: such a group counts as zeros.
  const float inverse = peak > 1e-30f ? most / peak : 0.f;
  for (int i = 0; i < kGroupVectors; ++i) g.at[i] = mul(g.at[i], splat(inverse));
  *scale = (inverse > 0 ? peak / most : 0.f) + reduceAdd(finite);
  return g;
}

// Integers of -127 .. 127 as the next group of a row.
GQA_INLINE void putGroup(const Group& g, float scale, RowPlace to) {
  constexpr int kWords = kGroup / 4;
  int8_t bytes[kGroup];
  Vec sum = zero();
  for (int i = 0; i < kGroupVectors; ++i) {
    storeI8(bytes + i * kLanes, g.at[i]);
    sum = add(sum, g.at[i]);
  }
  for (int w = 0; w < kWords; ++w) std::memcpy(to.words + w * to.rows, bytes + 4 * w, 4);
  const float total = reduceAdd(sum), weighted = scale * total;
  std::memcpy(to.words + kWords * to.rows, &scale, 4);
  to.words[(kWords + 1) * to.rows] = scale == scale ? int32_t(total) : 0;
  std::memcpy(to.words + (kWords + 2) * to.rows, &weighted, 4);
}

GQA_INLINE void packBytes(const float* x, int64_t columns, RowPlace to) {
  for (int64_t l = 0; l < columns; l += kGroup) {
    float scale;
    Group g = scaledGroup(x + l, 127.f, &scale);
    for (int i = 0; i < kGroupVectors; ++i) g.at[i] = roundEven(g.at[i]);
    putGroup(g, scale, to);
    to.words += kActivationGroupWords * to.rows;
  }
}

// The rest of x after its multiples of base were taken out into `digit`.
GQA_INLINE Vec takeDigit(Vec x, float base, Vec* digit) {
  *digit = roundEven(mul(x, splat(1 / base)));
  return fma(*digit, splat(-base), x);
}

// Base 254, not 256: a rest of half the base must still be a digit of a signed byte.
GQA_INLINE void packDigits(const float* x, int64_t columns, const RowPlace (&rows)[kDigits]) {
  constexpr float kBase = 254.f, kMost = 65 * kBase * kBase;  // below 2^22, as roundEven wants it
  for (int64_t l = 0, word = 0; l < columns; l += kGroup, word += kActivationGroupWords) {
    float scale;
    const Group whole = scaledGroup(x + l, kMost, &scale);
    Group digits[kDigits];
    for (int i = 0; i < kGroupVectors; ++i) {
      const Vec rest = takeDigit(roundEven(whole.at[i]), kBase * kBase, &digits[0].at[i]);
      digits[2].at[i] = takeDigit(rest, kBase, &digits[1].at[i]);
    }
    const float scales[kDigits] = {scale * kBase * kBase, scale * kBase, scale};
    for (int d = 0; d < kDigits; ++d)
      putGroup(digits[d], scales[d], {rows[d].words + word * rows[d].rows, rows[d].rows});
  }
}

// Tokens [first, last) of x into the forms that the problem's weights want; `scratch` holds one row.
void prepareActivations(const LinearProblem& p, int64_t first, int64_t last, float* scratch) {
  for (int64_t t = first; t < last; ++t) {
    const float* x = p.x + t * p.columns;
    if (p.norm.weight) {
      float* row = p.forms.rows ? p.forms.rows + t * p.columns : scratch;
      normaliseRow(x, p.norm, row, p.columns);
      x = row;
    }
    if (p.forms.pairs) packPairs(x, p.columns, placeOf({Activations::pairs, p.tokens, p.columns}, p.forms.pairs, t));
    if (p.forms.bytes) packBytes(x, p.columns, placeOf({Activations::bytes, p.tokens, p.columns}, p.forms.bytes, t));
    if (p.forms.tiles) packTilePairs(x, p.columns, t, p.forms.tiles);
    if (p.forms.digits) {
      const ActivationLayout layout = {Activations::digits, p.tokens, p.columns};
      packDigits(x, p.columns,
                 {placeOf(layout, p.forms.digits, t * kDigits), placeOf(layout, p.forms.digits, t * kDigits + 1),
                  placeOf(layout, p.forms.digits, t * kDigits + 2)});
    }
  }
}

}  // namespace
}  // namespace gqa
