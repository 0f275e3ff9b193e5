// Tokens into quantised blocks, and blocks back to f32 panels. A group is 32 dims of one token's key or value:
//   q8_0  x = d q,      d = f16(max |x| / 127),           q = round(x / d) of [-127, 127]
//   q4_1  x = d q + m,  m = f16(min x), d = f16((max x - m) / 15),  q = round((x - m) / d) of [0, 15]
// in f32 arithmetic, ties to even; dims beyond the head's count as 0. The caller has checked that |x| <= kMaxQuantised.
#pragma once

namespace gqa {
namespace {

// A group of 32 as whole numbers, with its f16 scale and minimum.
struct QuantisedGroup {
  alignas(64) int8_t q[kGroup];
  uint16_t scale, minimum;
};

GQA_INLINE uint16_t toHalf(float x) {
  uint16_t bits[kLanes];
  storeF16(bits, splat(x));
  return bits[0];
}
GQA_INLINE float fromHalf(uint16_t bits) {
  uint16_t lanes[kLanes] = {bits};
  float x[kLanes];
  store(x, loadF16(lanes));
  return x[0];
}

// Lanes [0, n) as whole numbers of [low, high].
GQA_INLINE void roundGroup(QuantisedGroup& g, Vec a, Vec b, float scale, float low, float high) {
  const Vec inverse = splat(scale > 0 ? 1 / scale : 0.f), least = splat(low), most = splat(high);
  storeI8(g.q, min(max(mul(a, inverse), least), most));
  storeI8(g.q + kLanes, min(max(mul(b, inverse), least), most));
}

GQA_INLINE void quantiseGroup(DType type, Vec a, Vec b, QuantisedGroup& g) {
  const Vec negA = sub(zero(), a), negB = sub(zero(), b);
  if (type == DType::q8_0) {
    g.minimum = 0;
    g.scale = toHalf(reduceMax(max(max(a, negA), max(b, negB))) / 127.f);
    return roundGroup(g, a, b, fromHalf(g.scale), -127, 127);
  }
  g.minimum = toHalf(-reduceMax(max(negA, negB)));
  const float minimum = fromHalf(g.minimum);
  g.scale = toHalf((reduceMax(max(a, b)) - minimum) / 15.f);
  roundGroup(g, sub(a, splat(minimum)), sub(b, splat(minimum)), fromHalf(g.scale), 0, 15);
}

GQA_INLINE void readGroup(DType type, DType from, const char* row, int64_t first, int64_t dims, QuantisedGroup& g) {
  const int64_t n = dims - first;
  const Vec a = loadAs(from, elementAt(row, from, first), n < kLanes ? n : kLanes);
  const Vec b =
      n > kLanes ? loadAs(from, elementAt(row, from, first + kLanes), n < kGroup ? n - kLanes : kLanes) : zero();
  quantiseGroup(type, a, b, g);
}

// A token's key: lane `lane` of every row.
GQA_INLINE void storeQuantisedKey(const PanelLayout& keys, char* base, int64_t lane, DType from, const char* row) {
  const int64_t v = lane / kLanes, at = lane % kLanes, rowBytes = keys.rowBytes(v);
  QuantisedGroup g;
  for (int64_t group = 0; group < keys.groups(); ++group) {
    readGroup(keys.dtype, from, row, group * kGroup, keys.steps, g);
    char* word = base + keys.chunkOffset(v, group) + at * 4;
    if (keys.dtype == DType::q8_0) {
      for (int i = 0; i < kGroup / 4; ++i) std::memcpy(word + i * rowBytes, g.q + 4 * i, 4);
    } else {
      for (int i = 0; i < kGroup / 8; ++i)
        for (int j = 0; j < 4; ++j) word[i * rowBytes + j] = char(g.q[8 * i + j] | g.q[8 * i + 4 + j] << 4);
    }
    char* scale = base + keys.scalesOffset(v, group) + at * 2;
    std::memcpy(scale, &g.scale, 2);
    if (keys.dtype == DType::q4_1) std::memcpy(scale + keys.rowVectors(v) * kLanes * 2, &g.minimum, 2);
  }
}

// A token's value: step `token` of every lane; see ValuePanels for the order within a word.
GQA_INLINE void storeQuantisedValue(const ValuePanels& values, char* base, int64_t token, DType from, const char* row) {
  const int64_t k = panelStep(values.dtype), place = valuePieceOf(values.dtype, token % k);
  QuantisedGroup g;
  for (int64_t dim = 0; dim < values.lanes; dim += kGroup) {
    const int64_t v = dim / kLanes;
    readGroup(values.dtype, from, row, dim, values.lanes, g);
    char* words = base + values.vectorOffset(v) + (token >> panelBits(values.dtype)) * values.rowBytes(v);
    for (int64_t i = 0; i < kGroup; ++i) {
      char* word = words + 4 * i;
      if (values.dtype == DType::q8_0)
        word[place] = char(g.q[i]);
      else
        word[place / 2] =
            place % 2 ? char((word[place / 2] & 0x0f) | g.q[i] << 4) : char((word[place / 2] & 0xf0) | g.q[i]);
    }
    char* scale = base + values.scalesOffset(v) + token * 2;
    std::memcpy(scale, &g.scale, 2);
    if (values.dtype == DType::q4_1) std::memcpy(scale + values.tokens * 2, &g.minimum, 2);
  }
}

// Piece n of a word, for 16 lanes: a byte of q8_0, a nibble of q4_1.
template <DType T>
GQA_INLINE Vec piece(IVec words, int n) {
  if (T == DType::q8_0) {
    if (n == 0) return byteToFloat<0>(words);
    if (n == 1) return byteToFloat<1>(words);
    return n == 2 ? byteToFloat<2>(words) : byteToFloat<3>(words);
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

// Vector v of a K panel, as vector v of the f32 panel `wide`.
template <DType T>
GQA_INLINE void widenKeys(const PanelLayout& keys, const char* base, int64_t v, const PanelLayout& wide, char* to) {
  constexpr int k = int(panelStep(T));
  const int64_t wideRow = wide.rowBytes(v);
  for (int64_t group = 0; group < keys.groups(); ++group) {
    const uint16_t* scales = reinterpret_cast<const uint16_t*>(base + keys.scalesOffset(v, group));
    const Vec d = loadF16(scales), m = T == DType::q4_1 ? loadF16(scales + keys.rowVectors(v) * kLanes) : zero();
    const char* row = base + keys.chunkOffset(v, group);
    for (int64_t step = group * kGroup; step < (group + 1) * kGroup; step += k, row += keys.rowBytes(v)) {
      const IVec words = loadI(row);
      char* out = to + wide.vectorOffset(v) + step * wideRow;
#pragma GCC unroll 8
      for (int n = 0; n < k; ++n)
        if (step + keyStepOf(T, n) < keys.steps)
          store(reinterpret_cast<float*>(out + keyStepOf(T, n) * wideRow), fma(piece<T>(words, n), d, m));
    }
  }
}

// Vector v of V, tokens [from, to) and those that share their words.
template <DType T>
GQA_INLINE void widenValues(const ValuePanels& values, const char* base, int64_t v, int64_t from, int64_t last,
                            const PanelLayout& wide, char* to) {
  constexpr int k = int(panelStep(T));
  alignas(64) float scales[kMaxBlockTokens], minimums[kMaxBlockTokens];
  const uint16_t* halves = reinterpret_cast<const uint16_t*>(base + values.scalesOffset(v));
  for (int64_t t = 0; t < values.tokens; t += kLanes) {
    store(scales + t, loadF16(halves + t));
    store(minimums + t, T == DType::q4_1 ? loadF16(halves + values.tokens + t) : zero());
  }
  for (int64_t t = from / k * k; t < last; t += k) {
    const IVec words = loadI(base + values.vectorOffset(v) + t / k * values.rowBytes(v));
#pragma GCC unroll 8
    for (int n = 0; n < k; ++n) {
      const int64_t token = t + valueStepOf(T, n);
      store(reinterpret_cast<float*>(to + wide.vectorOffset(v) + token * wide.rowBytes(v)),
            fma(piece<T>(words, n), splat(scales[token]), splat(minimums[token])));
    }
  }
}

// Keys [from, last) of a quantised block as the block `wide` of f32; what lies outside them may be anything finite.
template <DType T>
GQA_NOINLINE void widenBlock(const BlockLayout& layout, const char* base, int64_t from, int64_t last,
                             const BlockLayout& wide, char* to) {
  const PanelLayout wideValues = wide.values();
  for (int64_t v = from / kLanes; v * kLanes < last; ++v) widenKeys<T>(layout.keys(), base, v, wide.keys(), to);
  for (int64_t v = 0; v < wideValues.vectors(); ++v)
    widenValues<T>(layout.quantisedValues(), base + layout.valueOffset(), v, from, last, wideValues,
                   to + wide.valueOffset());
}

GQA_INLINE void widenBlock(const BlockLayout& layout, const char* base, int64_t from, int64_t last,
                           const BlockLayout& wide, char* to) {
  if (layout.dtype == DType::q8_0) return widenBlock<DType::q8_0>(layout, base, from, last, wide, to);
  widenBlock<DType::q4_1>(layout, base, from, last, wide, to);
}

}  // namespace
}  // namespace gqa
