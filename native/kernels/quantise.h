// Blocks of floats into quantised ones, and those back to panels of floats. L is 255 for q8_0, 15 for q4_1.
//   keys    per dim over the block's tokens:  x = d q + m,  m = f16(min x),  d = f16((max x - m) / L),
//                                             q = round((x - m) / d) of [0, L], 0 where d is
//   values  per token and 32 dims, as GGUF:   q8_0  x = d q,  d = f16(max |x| / 127),  q = round(x / d) of [-127, 127]
//                                             q4_1  as keys, of [0, 15]
// in f32 arithmetic, ties to even, the quotient a product with f32(1 / d); dims beyond the head's count as 0.
#pragma once

namespace gqa {
namespace {

// The pieces of a word are whole numbers: those of q8_0 in values signed, all others unsigned.
template <DType T, bool kSigned>
GQA_INLINE Vec piece(IVec words, int64_t n) {
  if (T == DType::q8_0) {
    if (n == 0) return kSigned ? byteToFloat<0>(words) : unsignedByteToFloat<0>(words);
    if (n == 1) return kSigned ? byteToFloat<1>(words) : unsignedByteToFloat<1>(words);
    if (n == 2) return kSigned ? byteToFloat<2>(words) : unsignedByteToFloat<2>(words);
    return kSigned ? byteToFloat<3>(words) : unsignedByteToFloat<3>(words);
  }
  if (n < 4) {
    if (n == 0) return nibbleToFloat<0>(words);
    if (n == 1) return nibbleToFloat<1>(words);
    return n == 2 ? nibbleToFloat<2>(words) : nibbleToFloat<3>(words);
  }
  if (n == 4) return nibbleToFloat<4>(words);
  if (n == 5) return nibbleToFloat<5>(words);
  return n == 6 ? nibbleToFloat<6>(words) : nibbleToFloat<7>(words);
}

// The words of k steps, numbers that fit unsigned pieces, in the order of blockStepOf.
template <DType T>
GQA_INLINE IVec joinSteps(const Vec (&numbers)[8]) {
  if constexpr (T == DType::q8_0) return joinBytes({numbers[0], numbers[2], numbers[1], numbers[3]});
  const Vec high = splat(16.f);
  return joinBytes({fma(numbers[4], high, numbers[0]), fma(numbers[5], high, numbers[1]),
                    fma(numbers[6], high, numbers[2]), fma(numbers[7], high, numbers[3])});
}

// Scales and what they divide by of 16 groups, from their ranges; f16 of both is written too.
struct Steps {
  alignas(64) float minimums[kLanes], inverses[kLanes];
};

GQA_INLINE Vec roundHalf(Vec x, char* to) {
  uint16_t bits[kLanes];
  storeF16(bits, x);
  std::memcpy(to, bits, sizeof bits);
  return loadF16(bits);
}

// 0 where x is.
GQA_INLINE Vec inverseOf(Vec x) {
  const Vec none = zero(), size = max(x, sub(none, x));
  return whereLess(none, size, div(splat(1.f), x), none);
}

GQA_INLINE void findSteps(Vec lowest, Vec highest, float most, char* minimums, char* scales, Steps& steps) {
  const Vec m = roundHalf(add(lowest, zero()), minimums);  // no minimum is -0
  store(steps.minimums, m);
  store(steps.inverses, inverseOf(roundHalf(div(sub(highest, m), splat(most)), scales)));
}

GQA_INLINE Vec quantised(Vec x, float minimum, float inverse, float least, float most) {
  const Vec q = mul(sub(x, splat(minimum)), splat(inverse));
  return roundEven(min(max(q, splat(least)), splat(most)));
}

// Steps of 16 lanes of a panel of floats.
template <DType F>
struct StepReader {
  const char* column;
  int64_t rowBytes;

  GQA_INLINE StepReader(const PanelLayout& layout, const char* base, int64_t v)
      : column(base + layout.vectorOffset(v)), rowBytes(layout.rowBytes(v)) {}
  GQA_INLINE Vec at(int64_t l) const {
    const char* row = column + (l >> panelBits(F)) * rowBytes;
    if (F == DType::f32) return PanelF32::first(row);
    if (F == DType::f16) return PanelF16::first(row);
    return l % 2 ? PanelBf16::second(row) : PanelBf16::first(row);
  }
};

// Dims [d, d + 16) of the block's keys. Dims beyond the last have no range: their numbers are 0, whatever is read.
template <DType T, DType F>
GQA_INLINE void quantiseDims(const PanelLayout& from, const char* source, const KeyPanel& to, char* panel, int64_t d) {
  constexpr int64_t k = panelStep(T);
  constexpr float most = T == DType::q8_0 ? 255 : 15;
  const int64_t vectors = to.tokens / kLanes, dims = lanesLeft(d, to.dims);
  alignas(64) float highest[kLanes] = {}, lowest[kLanes] = {};
  for (int64_t i = 0; i < dims; ++i) {
    Vec high = StepReader<F>(from, source, 0).at(d + i), low = high;
    for (int64_t v = 1; v < vectors; ++v) {
      const Vec x = StepReader<F>(from, source, v).at(d + i);
      high = max(x, high);
      low = min(x, low);
    }
    highest[i] = reduceMax(high);
    lowest[i] = -reduceMax(sub(zero(), low));
  }
  Steps steps;
  findSteps(load(lowest), load(highest), most, panel + to.minimumsOffset() + d * 2, panel + to.scalesOffset() + d * 2,
            steps);
  for (int64_t i = 0; i < dims; i += k)
    for (int64_t v = 0; v < vectors; ++v) {
      const StepReader<F> reader(from, source, v);
      Vec numbers[8];
#pragma GCC unroll 8
      for (int64_t n = 0; n < k; ++n) {
        const int64_t at = i + n < dims ? i + n : dims - 1;
        numbers[n] = quantised(reader.at(d + at), steps.minimums[i + n], steps.inverses[i + n], 0, most);
      }
      storeI(panel + (d + i) / k * to.rowBytes() + to.vectorOffset(v), joinSteps<T>(numbers));
    }
}

template <DType T, DType F>
GQA_NOINLINE void quantiseKeys(const PanelLayout& from, const char* source, const KeyPanel& to, char* panel) {
  for (int64_t d = 0; d < to.dims; d += kLanes) quantiseDims<T, F>(from, source, to, panel, d);
}

// Dims [16 v, 16 v + 32), tokens [t, t + 16): their scales.
template <DType T, DType F>
GQA_INLINE void valueSteps(const PanelLayout& from, const char* source, const ValuePanels& to, char* panels, int64_t v,
                           int64_t t, Steps& steps) {
  const bool both = v + 1 < from.vectors();
  const StepReader<F> first(from, source, v), second(from, source, both ? v + 1 : v);
  alignas(64) float highest[kLanes], lowest[kLanes];
  for (int64_t i = 0; i < kLanes; ++i) {
    const Vec a = first.at(t + i), b = both ? second.at(t + i) : zero();
    const Vec high = max(a, b), low = max(sub(zero(), a), sub(zero(), b));
    highest[i] = reduceMax(T == DType::q8_0 ? max(high, low) : high);
    if (T == DType::q4_1) lowest[i] = -reduceMax(low);
  }
  char* scales = panels + to.scalesOffset(v) + t * 2;
  if (T == DType::q4_1) return findSteps(load(lowest), load(highest), 15, scales + to.tokens * 2, scales, steps);
  store(steps.minimums, zero());
  store(steps.inverses, inverseOf(roundHalf(div(load(highest), splat(127.f)), scales)));
}

// The numbers of a token as unsigned pieces: those of q8_0 with their signs flipped.
template <DType T>
GQA_INLINE Vec valueNumbers(Vec x, const Steps& steps, int64_t token) {
  if (T == DType::q4_1) return quantised(x, steps.minimums[token], steps.inverses[token], 0, 15);
  return add(quantised(x, 0, steps.inverses[token], -127, 127), splat(128.f));
}

template <DType T, DType F>
GQA_NOINLINE void quantiseValues(const PanelLayout& from, const char* source, const ValuePanels& to, char* panels) {
  constexpr int64_t k = panelStep(T);
  Steps steps[kMaxBlockTokens / kLanes];
  for (int64_t v = 0; v < to.vectors(); ++v) {
    const bool held = v < from.vectors();
    const StepReader<F> reader(from, source, held ? v : 0);
    for (int64_t t = 0; v % 2 == 0 && t < to.tokens; t += kLanes)
      valueSteps<T, F>(from, source, to, panels, v, t, steps[t / kLanes]);
    for (int64_t t = 0; t < to.tokens; t += k) {
      Vec numbers[8];
#pragma GCC unroll 8
      for (int64_t n = 0; n < k; ++n)
        numbers[n] = valueNumbers<T>(held ? reader.at(t + n) : zero(), steps[t / kLanes], t % kLanes + n);
      const IVec words = joinSteps<T>(numbers);
      char* row = panels + to.vectorOffset(v) + t / k * to.rowBytes(v);
      storeI(row, T == DType::q8_0 ? flipSigns(words) : words);
    }
  }
}

// Steps l and l + 1 of 16 lanes into a panel of f32, or as a row of pairs into one of bf16.
template <bool kPairs>
GQA_INLINE void storeWide(const PanelLayout& wide, char* column, int64_t rowBytes, int64_t l, Vec even, Vec odd) {
  if (kPairs) return roundBf16Pairs(reinterpret_cast<uint16_t*>(column + l / 2 * rowBytes), even, odd);
  store(reinterpret_cast<float*>(column + l * rowBytes), even);
  if (l + 1 < wide.steps) store(reinterpret_cast<float*>(column + (l + 1) * rowBytes), odd);
}

// Vector v of the keys, as vector v of the panel `wide`.
template <DType T, bool kPairs>
GQA_INLINE void widenKeys(const KeyPanel& keys, const char* base, int64_t v, const PanelLayout& wide, char* to) {
  constexpr int64_t k = panelStep(T);
  char* column = to + wide.vectorOffset(v);
  alignas(64) float m[kLanes], d[kLanes];
  for (int64_t dim = 0; dim < keys.dims; dim += k) {
    if (dim % kLanes == 0) {
      store(m, loadF16(reinterpret_cast<const uint16_t*>(base + keys.minimumsOffset() + dim * 2)));
      store(d, loadF16(reinterpret_cast<const uint16_t*>(base + keys.scalesOffset() + dim * 2)));
    }
    const IVec words = loadI(base + dim / k * keys.rowBytes() + keys.vectorOffset(v));
#pragma GCC unroll 4
    for (int64_t n = 0; n < k; n += 2) {
      if (dim + n >= keys.dims) break;
      const int64_t i = dim % kLanes + n;
      const Vec even = fma(piece<T, false>(words, blockPieceOf(T, n)), splat(d[i]), splat(m[i]));
      const Vec odd = fma(piece<T, false>(words, blockPieceOf(T, n + 1)), splat(d[i + 1]), splat(m[i + 1]));
      storeWide<kPairs>(wide, column, wide.rowBytes(v), dim + n, even, odd);
    }
  }
}

// Vector v of V, tokens [from, last) and those that share their words.
template <DType T, bool kPairs>
GQA_INLINE void widenValues(const ValuePanels& values, const char* base, int64_t v, int64_t from, int64_t last,
                            const PanelLayout& wide, char* to) {
  constexpr int64_t k = panelStep(T);
  alignas(64) float scales[kMaxBlockTokens], minimums[kMaxBlockTokens];
  const uint16_t* halves = reinterpret_cast<const uint16_t*>(base + values.scalesOffset(v));
  for (int64_t t = 0; t < values.tokens; t += kLanes) {
    store(scales + t, loadF16(halves + t));
    store(minimums + t, T == DType::q4_1 ? loadF16(halves + values.tokens + t) : zero());
  }
  char* column = to + wide.vectorOffset(v);
  for (int64_t t = from / k * k; t < last; t += k) {
    const IVec words = loadI(base + values.vectorOffset(v) + t / k * values.rowBytes(v));
#pragma GCC unroll 4
    for (int64_t n = 0; n < k; n += 2) {
      const float* d = scales + t + n;
      const float* m = minimums + t + n;
      const Vec even = fma(piece<T, true>(words, blockPieceOf(T, n)), splat(d[0]), splat(m[0]));
      const Vec odd = fma(piece<T, true>(words, blockPieceOf(T, n + 1)), splat(d[1]), splat(m[1]));
      storeWide<kPairs>(wide, column, wide.rowBytes(v), t + n, even, odd);
    }
  }
}

// Keys [from, last) of a quantised panel as the panel `wide` of f32 or bf16; what lies outside may be anything finite.
template <bool kPairs>
GQA_NOINLINE void widenKeys(const KeyPanel& keys, const char* base, int64_t from, int64_t last, const PanelLayout& wide,
                            char* to) {
  for (int64_t v = from / kLanes; v * kLanes < last; ++v)
    if (keys.dtype == DType::q8_0)
      widenKeys<DType::q8_0, kPairs>(keys, base, v, wide, to);
    else
      widenKeys<DType::q4_1, kPairs>(keys, base, v, wide, to);
}

// The same of values.
template <bool kPairs>
GQA_NOINLINE void widenValues(const ValuePanels& values, const char* base, int64_t from, int64_t last,
                              const PanelLayout& wide, char* to) {
  for (int64_t v = 0; v < wide.vectors(); ++v)
    if (values.dtype == DType::q8_0)
      widenValues<DType::q8_0, kPairs>(values, base, v, from, last, wide, to);
    else
      widenValues<DType::q4_1, kPairs>(values, base, v, from, last, wide, to);
}

}  // namespace
}  // namespace gqa
