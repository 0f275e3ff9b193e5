// What happens to a tile of scores between q.k and the softmax, each feature one pass over rows that lie in L1:
//   softcap, + bias, + slope (j - p), mask, window and causal bounds, then log2 units.
// A hidden key's score is overwritten with -Infinity, never added to: whatever NaN it held is gone.
#pragma once

namespace gqa {
namespace {

constexpr int64_t kScoreStride = kMaxBlockTokens;

// The rows of a tile and the columns of a block they look at. Columns are tokens within the block.
struct ScoreTile {
  const AttendProblem* problem;
  float* scores;  // [rows][kScoreStride]
  int64_t rows;
  int64_t batch, kvHead, group;
  int64_t firstRow;                 // row = query * group + head of the group
  int64_t firstKey;                 // position of column 0
  int64_t firstColumn, lastColumn;  // [multiple of 16, multiple of 16)

  GQA_INLINE int64_t query(int64_t r) const { return (firstRow + r) / group; }
  GQA_INLINE int64_t head(int64_t r) const { return kvHead * group + (firstRow + r) % group; }
  // Key of the rows' first token.
  GQA_INLINE int64_t firstToken() const { return problem->keyTokens - problem->queryTokens; }
  GQA_INLINE int64_t position(int64_t r) const {
    return problem->positions ? problem->positions[query(r)] : query(r) + firstToken();
  }
  GQA_INLINE float* row(int64_t r) const { return scores + r * kScoreStride; }
  // Element (row, firstKey) of a broadcast [B|1, Hq|1, Tq, Tk] tensor; one over a tree begins at the rows' first token.
  template <class T>
  GQA_INLINE const T* rowOf(const Broadcast<T>& t, int64_t r) const {
    const int64_t begin = problem->tree ? firstToken() : 0;
    return t.data + batch * t.batchStride + head(r) * t.headStride + query(r) * (problem->keyTokens - begin) +
           firstKey - begin;
  }
  // Columns [c, c + 16) that exist.
  GQA_INLINE int64_t existing(int64_t c) const { return lanesLeft(firstKey + c, problem->keyTokens); }
};

GQA_INLINE void applySoftcap(const ScoreTile& t) {
  const Vec cap = splat(t.problem->softcap), inverse = splat(1 / t.problem->softcap);
  for (int64_t r = 0; r < t.rows; ++r)
    for (int64_t c = t.firstColumn; c < t.lastColumn; c += kLanes)
      store(t.row(r) + c, mul(cap, tanh(mul(load(t.row(r) + c), inverse))));
}

// Positions of 16 columns less that of a row.
GQA_INLINE Vec alibiDistances(const ScoreTile& t, int64_t c, int64_t position) {
  static const float lanes[kLanes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  if (!t.problem->tree) return add(load(lanes), splat(float(t.firstKey + c - position)));
  float distances[kLanes] = {0};
  for (int64_t i = 0; i < kLanes; ++i) {
    const int64_t token = t.firstKey + c + i - t.firstToken();
    if (token >= 0 && token < t.problem->queryTokens) distances[i] = float(t.problem->positions[token] - position);
  }
  return load(distances);
}

GQA_INLINE void applyAlibi(const ScoreTile& t) {
  for (int64_t r = 0; r < t.rows; ++r) {
    const Vec slope = splat(t.problem->alibiSlopes[t.head(r)]);
    for (int64_t c = t.firstColumn; c < t.lastColumn; c += kLanes)
      store(t.row(r) + c, fma(slope, alibiDistances(t, c, t.position(r)), load(t.row(r) + c)));
  }
}

// A bias of -Infinity hides the key.
GQA_INLINE void applyBias(const ScoreTile& t) {
  const Vec lowest = splat(-std::numeric_limits<float>::max()), hidden = splat(-kInfinity);
  for (int64_t r = 0; r < t.rows; ++r) {
    const float* bias = t.rowOf(t.problem->bias, r);
    for (int64_t c = t.firstColumn; c < t.lastColumn && t.existing(c) > 0; c += kLanes) {
      const Vec b = loadFirst(bias + c, t.existing(c));
      store(t.row(r) + c, whereLess(b, lowest, hidden, add(load(t.row(r) + c), b)));
    }
  }
}

GQA_INLINE void applyMask(const ScoreTile& t) {
  const Vec hidden = splat(-kInfinity);
  for (int64_t r = 0; r < t.rows; ++r) {
    const uint8_t* mask = t.rowOf(t.problem->mask, r);
    for (int64_t c = t.firstColumn; c < t.lastColumn && t.existing(c) > 0; c += kLanes) {
      uint8_t bytes[kLanes] = {0};
      std::memcpy(bytes, mask + c, size_t(t.existing(c)));
      store(t.row(r) + c, whereByte(bytes, load(t.row(r) + c), hidden));
    }
  }
}

// True if the mask hides columns [lo, hi) from every row.
GQA_INLINE bool maskHidesAll(const ScoreTile& t, int64_t lo, int64_t hi) {
  for (int64_t r = 0; r < t.rows; ++r) {
    const uint8_t* mask = t.rowOf(t.problem->mask, r);
    for (int64_t c = lo; c < hi; ++c)
      if (mask[c]) return false;
  }
  return true;
}

// Whether row r sees the key of a column, for where its weight does not tell: one of 0 may have vanished.
GQA_INLINE bool sees(const ScoreTile& t, int64_t r, int64_t column) {
  const AttendProblem& p = *t.problem;
  const int64_t key = t.firstKey + column, position = t.position(r);
  if (p.causal && key > position) return false;
  if (key <= position - p.window && key >= p.sinkTokens) return false;
  if (p.mask.data && t.rowOf(p.mask, r)[column] == 0) return false;
  return !p.bias.data || t.rowOf(p.bias, r)[column] != -kInfinity;
}

GQA_INLINE int64_t clampLane(int64_t column, int64_t first) {
  return column < first ? 0 : column - first > kLanes ? kLanes : column - first;
}

// Hides what causality, the window and the run's own end [firstKey', lastKey') hide, row by row; `nothing` is what a
// hidden score becomes, or what else the tile holds.
GQA_INLINE void applyBounds(const ScoreTile& t, int64_t firstKey, int64_t lastKey, float nothing = -kInfinity) {
  const AttendProblem& p = *t.problem;
  const Vec hidden = splat(nothing);
  for (int64_t r = 0; r < t.rows; ++r) {
    const int64_t position = t.position(r);
    const int64_t end = (p.causal && position + 1 < lastKey ? position + 1 : lastKey) - t.firstKey;
    const int64_t begin = firstKey - t.firstKey;
    const int64_t windowBegin = position - p.window + 1 - t.firstKey, sinkEnd = p.sinkTokens - t.firstKey;
    for (int64_t c = t.firstColumn; c < t.lastColumn; c += kLanes) {
      const Vec x = load(t.row(r) + c);
      const Vec held = whereLane(clampLane(begin, c), clampLane(end, c), x, hidden);
      const Vec near = whereLane(clampLane(windowBegin, c), kLanes, held, hidden);
      store(t.row(r) + c, whereLane(0, clampLane(sinkEnd, c), held, near));
    }
  }
}

GQA_INLINE void multiplyScores(const ScoreTile& t, float factor) {
  for (int64_t r = 0; r < t.rows; ++r)
    for (int64_t c = t.firstColumn; c < t.lastColumn; c += kLanes)
      store(t.row(r) + c, mul(load(t.row(r) + c), splat(factor)));
}

GQA_INLINE uint32_t mixBits(uint32_t x) {  // the finaliser of murmur3
  x = (x ^ (x >> 16)) * 0x85ebca6bu;
  x = (x ^ (x >> 13)) * 0xc2b2ae35u;
  return x ^ (x >> 16);
}

// Zeroes weights with the problem's probability and scales the others up; decided by a counter, see contract.ts.
GQA_INLINE void applyDropout(const ScoreTile& t, float* weights) {
  const AttendProblem& p = *t.problem;
  const uint32_t threshold = uint32_t(p.dropout * 4294967296.0);
  const float keep = float(1 / (1 - p.dropout));
  for (int64_t r = 0; r < t.rows; ++r) {
    uint32_t row = mixBits(p.dropoutSeed ^ uint32_t(t.batch));
    row = mixBits(mixBits(row ^ uint32_t(t.head(r))) ^ uint32_t(t.query(r)));
    for (int64_t c = t.firstColumn; c < t.lastColumn; ++c)
      weights[r * kScoreStride + c] *= mixBits(row ^ uint32_t(t.firstKey + c)) >= threshold ? keep : 0.f;
  }
}

}  // namespace
}  // namespace gqa
