// The input x of linear layers as their kernels read it. x may be RMS-normalised on the way. Three forms:
//   rows   f32 [tokens][columns], x itself where nothing normalises it;
//   pairs  bf16, rounded to nearest even, in the order of a panel of bf16 weights: per tile of tokens [columns /
//   2][token][2]; bytes  int8 with a scale per token and 32 columns, x = scale * q, scale = largest |x| / 127: per tile
//   and group
//          [8][token][4] bytes, then f32 [token] scales, i32 [token] sums of q, f32 [token] scale * sum of q.
// A tile is kMaxTileRows tokens, the last fewer. A NaN or Infinity makes its group's scale NaN.
#pragma once
#include <cmath>

namespace gqa {
namespace {

constexpr float kByteMax = 127.f;

GQA_INLINE float rmsScale(const float* x, int64_t dim, float eps) {
  Vec squares = zero();
  for (int64_t d = 0; d < dim; d += kLanes) {
    const Vec v = loadFirst(x + d, lanesLeft(d, dim));
    squares = fma(v, v, squares);
  }
  return 1 / std::sqrt(reduceAdd(squares) / float(dim) + eps);
}

GQA_INLINE void normaliseRow(const float* x, const float* weight, float* out, int64_t dim, float eps) {
  const Vec scale = splat(rmsScale(x, dim, eps));
  for (int64_t d = 0; d < dim; d += kLanes) {
    const int64_t n = lanesLeft(d, dim);
    storeFirst(out + d, n, mul(mul(loadFirst(x + d, n), scale), loadFirst(weight + d, n)));
  }
}

// Where a token's part of its tile begins, and the distance between its words, in words.
struct TokenPlace {
  int32_t* words;
  int64_t tokens;
};

GQA_INLINE TokenPlace placeOf(const ActivationLayout& layout, void* base, int64_t token) {
  const int64_t first = token / kTileTokens * kTileTokens;
  const int64_t tokens = layout.tokens - first < kTileTokens ? layout.tokens - first : kTileTokens;
  return {static_cast<int32_t*>(base) + first * layout.tokenWords() + token - first, tokens};
}

GQA_INLINE void packPairs(const float* x, int64_t columns, TokenPlace to) {
  uint16_t bits[kLanes];
  for (int64_t l = 0; l < columns; l += kLanes) {
    const int64_t n = lanesLeft(l, columns);
    storeBf16(bits, loadFirst(x + l, n));
    for (int64_t i = 0; i < n; i += 2) {
      std::memcpy(to.words, bits + i, 4);
      to.words += to.tokens;
    }
  }
}

GQA_INLINE void packBytes(const float* x, int64_t columns, TokenPlace to) {
  constexpr int kVectors = kGroup / kLanes, kWords = kGroup / 4;
  int8_t bytes[kGroup];
  for (int64_t l = 0; l < columns; l += kGroup) {
    Vec v[kVectors], most = zero(), finite = zero(), sum = zero();
    for (int i = 0; i < kVectors; ++i) {
      v[i] = load(x + l + i * kLanes);
      most = max(most, max(v[i], sub(zero(), v[i])));
      finite = fma(v[i], zero(), finite);
    }
    const float largest = reduceMax(most);
    // Below the least normal number an inverse would overflow; such a group counts as zeros.
    const float inverse = largest > 1e-36f ? kByteMax / largest : 0.f;
    const float scale = (inverse > 0 ? largest / kByteMax : 0.f) + reduceAdd(finite);
    for (int i = 0; i < kVectors; ++i) {
      v[i] = roundEven(mul(v[i], splat(inverse)));
      storeI8(bytes + i * kLanes, v[i]);
      sum = add(sum, v[i]);
    }
    for (int w = 0; w < kWords; ++w) std::memcpy(to.words + w * to.tokens, bytes + 4 * w, 4);
    const float total = reduceAdd(sum), weighted = scale * total;
    const int32_t whole = scale == scale ? int32_t(total) : 0;
    std::memcpy(to.words + kWords * to.tokens, &scale, 4);
    to.words[(kWords + 1) * to.tokens] = whole;
    std::memcpy(to.words + (kWords + 2) * to.tokens, &weighted, 4);
    to.words += kActivationGroupWords * to.tokens;
  }
}

// Tokens [first, last) of x into the forms that the problem's weights want; `scratch` holds one row.
void prepareActivations(const LinearProblem& p, int64_t first, int64_t last, float* scratch) {
  for (int64_t t = first; t < last; ++t) {
    const float* x = p.x + t * p.columns;
    if (p.norm) {
      float* row = p.forms.rows ? p.forms.rows + t * p.columns : scratch;
      normaliseRow(x, p.norm, row, p.columns, p.eps);
      x = row;
    }
    if (p.forms.pairs) packPairs(x, p.columns, placeOf({Activations::pairs, p.tokens, p.columns}, p.forms.pairs, t));
    if (p.forms.bytes) packBytes(x, p.columns, placeOf({Activations::bytes, p.tokens, p.columns}, p.forms.bytes, t));
  }
}

}  // namespace
}  // namespace gqa
