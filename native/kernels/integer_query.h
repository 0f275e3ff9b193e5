// Queries as the whole numbers that meet quantised K (integer_products.h). Dims have scales d and minimums m of their
// own, so a row is multiplied by them, block by block:
//   q.k = sum q_i (d_i c_i + m_i) = sum_runs step sum n_i (c_i - z) + sum q_i (m_i + z d_i)
// n = q d in whole numbers of a step per row and run of dims, 16 bits against q8_0, 8 against q4_1, there measured from
// the middle z of c, so that what rounding leaves over meets a distance of half the range at most.
#pragma once

namespace gqa {
namespace {

constexpr float kMost16 = 32767.f;
constexpr float kMiddleDigit = 7.5f;  // of 4 bits
// Queries whose largest element is smaller count as 0: the inverse of a tinier one would overflow.
constexpr float kLeastQuery = 1e-30f;

// Words of a row that meet one row of words of K.
constexpr int kPieces = 2;

// Dims that share a step. 256 * 255 * 32767 is below 2^31.
constexpr int64_t queryRun(DType storage) { return storage == DType::q8_0 ? 256 : 64; }

struct IntegerQueryLayout {
  DType storage;
  int64_t dims;

  GQA_INLINE int64_t runs() const { return (dims + queryRun(storage) - 1) / queryRun(storage); }
  GQA_INLINE int64_t paddedDims() const { return roundUp(dims, kLanes); }
  // A row as floats, those of a run divided by its largest over `most`: then that quotient of each run.
  GQA_INLINE int64_t floats() const { return roundUp(paddedDims() + runs(), kLanes); }
  // A row as numbers: words, then a step for each run, then what is the same for all tokens.
  GQA_INLINE int64_t words() const { return storage == DType::q8_0 ? paddedDims() / 2 : paddedDims() / 4; }
  GQA_INLINE int64_t stride() const { return roundUp(words() + runs() + 1, kLanes); }
  // Of a block: scales over the run's largest, minimums from the middle on, then the largest scales.
  GQA_INLINE int64_t blockFloats() const { return roundUp(2 * paddedDims() + runs(), kLanes); }
};

// NaN where a lane is NaN or infinite, else 0.
GQA_INLINE float notFinite(Vec sum) { return reduceAdd(mul(sum, zero())); }

GQA_INLINE float largestOf(const float* x, int64_t count) {
  Vec largest = zero();
  for (int64_t i = 0; i < count; i += kLanes) largest = max(max(load(x + i), sub(zero(), load(x + i))), largest);
  return reduceMax(largest);
}

// Makes such floats of a row, padded with zeros to 16, in place.
GQA_INLINE void normaliseQuery(const IntegerQueryLayout& layout, float* query) {
  const float most = layout.storage == DType::q8_0 ? kMost16 : 127.f;
  float* quotient = query + layout.paddedDims();
  for (int64_t d = 0; d < layout.paddedDims(); d += queryRun(layout.storage)) {
    const int64_t left = layout.paddedDims() - d,
                  count = left < queryRun(layout.storage) ? left : queryRun(layout.storage);
    const float largest = largestOf(query + d, count);
    const Vec inverse = splat(largest > kLeastQuery ? most / largest : 0.f);
    for (int64_t i = d; i < d + count; i += kLanes) store(query + i, mul(load(query + i), inverse));
    *quotient++ = largest / most;
  }
}

// What all rows need of a block's keys.
template <DType T>
GQA_NOINLINE void keyTerms(const KeyPanel& keys, const char* base, float* terms) {
  constexpr int64_t kRun = queryRun(T);
  const int64_t padded = IntegerQueryLayout{T, keys.dims}.paddedDims();
  const uint16_t* m = reinterpret_cast<const uint16_t*>(base + keys.minimumsOffset());
  const uint16_t* d = reinterpret_cast<const uint16_t*>(base + keys.scalesOffset());
  float* largest = terms + 2 * padded;
  for (int64_t first = 0; first < padded; first += kRun, ++largest) {
    const int64_t last = first + kRun < padded ? first + kRun : padded;
    Vec most = zero();
    for (int64_t i = first; i < last; i += kLanes) {
      const Vec scale = loadF16(d + i), minimum = loadF16(m + i);
      most = max(max(scale, sub(zero(), scale)), most);
      store(terms + padded + i, T == DType::q8_0 ? minimum : fma(scale, splat(kMiddleDigit), minimum));
    }
    *largest = reduceMax(most);
    const Vec inverse = splat(*largest > 0 ? 1 / *largest : 0.f);
    for (int64_t i = first; i < last; i += kLanes) store(terms + i, mul(loadF16(d + i), inverse));
  }
}

// Rows of floats as numbers for a block, a run of dims of all rows at a time.
template <DType T>
GQA_NOINLINE void packIntegerQueries(const IntegerQueryLayout& layout, int64_t rows, const float* queries,
                                     const float* terms, float* numbers) {
  constexpr int64_t kRun = queryRun(T);
  const int64_t padded = layout.paddedDims(), words = layout.words(), stride = layout.stride();
  Vec totals[kTileRows];
  for (int64_t run = 0, first = 0; first < padded; ++run, first += kRun) {
    const int64_t last = first + kRun < padded ? first + kRun : padded;
    const float largest = terms[2 * padded + run];
    const float* query = queries;
    float* to = numbers;
    for (int64_t r = 0; r < rows; ++r, query += layout.floats(), to += stride) {
      Vec shifts = zero(), sums = zero();
      for (int64_t d = first; d < last; d += kLanes) {
        const Vec q = load(query + d), n = mul(q, load(terms + d));
        shifts = fma(q, load(terms + padded + d), shifts);
        if (T == DType::q8_0) {
          storeI16(reinterpret_cast<int16_t*>(to + d / 2), n);
        } else {
          const Vec whole = roundEven(n);
          sums = add(whole, sums);
          storeI8(reinterpret_cast<int8_t*>(to + d / 4), whole);
        }
      }
      const float quotient = query[padded + run], step = quotient * largest;
      to[words + run] = step;
      const Vec before = run == 0 ? zero() : totals[r];
      const Vec total = fma(shifts, splat(quotient), before);
      totals[r] = T == DType::q8_0 ? total : fma(sums, splat(-kMiddleDigit * step), total);
    }
  }
  for (int64_t r = 0; r < rows; ++r) numbers[r * stride + words + layout.runs()] = reduceAdd(totals[r]);
}

}  // namespace
}  // namespace gqa
