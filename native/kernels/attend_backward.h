// The gradients of attention of a group: tiles of rows (query, head of the group) against blocks of 64 keys, each pair
// of which meets once. What the forward pass did not keep is made anew from its LSE:
//   S = Q K^T,  P = exp(scale S - LSE),  dP = dO V^T,  dS = P (dP - delta),  delta = rowsum(dO O),
//   dV += P^T dO,  dK += scale dS^T Q,  dQ += scale dS K.
// With softcap P is of softcap * tanh(scale S / softcap) and dS takes its derivative, 1 - tanh^2. All sums are f32.
// A block's K and V are brought into their two orders once for all rows of the task. [FlashAttention-2, algorithm 2]
#pragma once

namespace gqa {
namespace {

// Rows of a tile at most: enough that loading and storing dK and dV is little beside the products that they take in. Of
// tiles that the mask cuts through half as many, so that less is computed in vain.
constexpr int64_t kBackwardRows = 48;
constexpr int64_t kCutRows = kBackwardRows / 2;

// A task's scratch in floats: where each part begins.
struct BackwardMap {
  int64_t rows, dims, valueDims;  // padded to whole vectors
  int64_t q, gradOut, gradQ, shift, delta;
  int64_t keys, keysAcross, valuesAcross, gradKeys, gradValues, weights, gradScores, total = 0;

  GQA_INLINE BackwardMap(const AttendProblem& p, int64_t tokens) {
    rows = tokens * (p.heads / p.kvHeads);
    dims = roundUp(p.headDim, kLanes);
    valueDims = roundUp(p.valueDim, kLanes);
    q = take(rows * dims);
    gradOut = take(rows * valueDims);
    gradQ = take(rows * dims);
    shift = take(rows);
    delta = take(rows);
    keys = take(kMaxBlockTokens * dims);
    keysAcross = take(kMaxBlockTokens * dims);
    valuesAcross = take(kMaxBlockTokens * valueDims);
    gradKeys = take(kMaxBlockTokens * dims);
    gradValues = take(kMaxBlockTokens * valueDims);
    weights = take(kBackwardRows * kScoreStride);
    gradScores = take(kBackwardRows * kScoreStride);
  }

 private:
  GQA_INLINE int64_t take(int64_t floats) {
    const int64_t at = total;
    total += roundUp(floats, kLanes);
    return at;
  }
};

int64_t attendBackwardFloats(const AttendBackwardProblem& b, int64_t tokens) {
  return BackwardMap(b.forward, tokens).total;
}

struct BackwardContext {
  const AttendBackwardTask& task;
  const AttendProblem& p;
  int64_t group, rows, dims, valueDims;
  float* q;             // [rows][dims]
  float* gradOut;       // [rows][valueDims]
  float* gradQ;         // [rows][dims], without the scale
  float* shift;         // [rows], -LSE log2 e
  float* delta;         // [rows]
  float* keys;          // [64][dims], of the block
  float* keysAcross;    // [headDim][64]
  float* valuesAcross;  // [valueDim][64]
  float* gradKeys;      // [64][dims], without the scale
  float* gradValues;    // [64][valueDims]
  float* weights;       // [kBackwardRows][64], S, then P, of a tile
  float* gradScores;    // [kBackwardRows][64], dP, then dS

  GQA_INLINE BackwardContext(const AttendBackwardTask& t) : task(t), p(t.problem->forward) {
    const BackwardMap map(p, t.tokens);
    group = p.heads / p.kvHeads;
    rows = map.rows;
    dims = map.dims;
    valueDims = map.valueDims;
    q = t.scratch + map.q;
    gradOut = t.scratch + map.gradOut;
    gradQ = t.scratch + map.gradQ;
    shift = t.scratch + map.shift;
    delta = t.scratch + map.delta;
    keys = t.scratch + map.keys;
    keysAcross = t.scratch + map.keysAcross;
    valuesAcross = t.scratch + map.valuesAcross;
    gradKeys = t.scratch + map.gradKeys;
    gradValues = t.scratch + map.gradValues;
    weights = t.scratch + map.weights;
    gradScores = t.scratch + map.gradScores;
  }

  // Of the task's row r in [batch, queryTokens, heads].
  GQA_INLINE int64_t rowIndex(int64_t r) const {
    const int64_t token = task.batch * p.queryTokens + task.firstToken + r / group;
    return token * p.heads + task.kvHead * group + r % group;
  }
  GQA_INLINE int64_t keyIndex(int64_t key) const { return (task.batch * p.keyTokens + key) * p.kvHeads + task.kvHead; }
  // The lowest and the highest position of rows [row, row + count).
  GQA_INLINE RowSpan positions(int64_t row, int64_t count) const {
    const int64_t begin = p.keyTokens - p.queryTokens + task.firstToken;
    return {begin + row / group, begin + (row + count - 1) / group};
  }
};

GQA_INLINE void clearFloats(float* to, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) store(to + i, zero());
}

// to[i] = factor * from[i], added to what is there if so wanted; nothing past `count` is touched.
GQA_INLINE void giveRow(float* to, const float* from, float factor, int64_t count, bool add) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t n = lanesLeft(i, count);
    storeFirst(to + i, n, fma(load(from + i), splat(factor), add ? loadFirst(to + i, n) : zero()));
  }
}

// Rows of one head lie too far apart for the hardware's prefetch: those of so many rows ahead.
constexpr int64_t kAheadRows = 16;

// The last line too, into which a row that does not start on one reaches.
GQA_INLINE void prefetchFloats(const float* row, int64_t count) {
  prefetchRow(reinterpret_cast<const char*>(row), count * 4);
  prefetchLine(reinterpret_cast<const char*>(row + count) - 1);
}

GQA_INLINE void prefetchInputs(const BackwardContext& c, int64_t r) {
  if (r >= c.rows) return;
  const AttendProblem& p = c.p;
  const int64_t row = c.rowIndex(r);
  prefetchFloats(static_cast<const float*>(p.q) + row * p.headDim, p.headDim);
  prefetchFloats(static_cast<const float*>(p.out) + row * p.valueDim, p.valueDim);
  prefetchFloats(c.task.problem->gradOut + row * p.valueDim, p.valueDim);
}

// Keys and values of a block, and where their gradients go.
GQA_INLINE void prefetchKeys(const BackwardContext& c, int64_t first, int64_t last) {
  const AttendProblem& p = c.p;
  for (int64_t key = first; key < last; ++key) {
    const int64_t index = c.keyIndex(key);
    prefetchFloats(static_cast<const float*>(p.k) + index * p.headDim, p.headDim);
    prefetchFloats(static_cast<const float*>(p.v) + index * p.valueDim, p.valueDim);
    prefetchFloats(c.task.gradK + index * p.headDim, p.headDim);
    prefetchFloats(c.task.gradV + index * p.valueDim, p.valueDim);
  }
}

// Q and dO as rows of whole vectors, and what each row's scores are measured from. A row that sees no key gets weights
// of 0 and no dO, whatever that holds.
GQA_INLINE void packRows(const BackwardContext& c) {
  const AttendProblem& p = c.p;
  for (int64_t r = 0; r < kAheadRows; ++r) prefetchInputs(c, r);
  for (int64_t r = 0; r < c.rows; ++r) {
    prefetchInputs(c, r + kAheadRows);
    const int64_t row = c.rowIndex(r);
    const float* q = static_cast<const float*>(p.q) + row * p.headDim;
    const float* out = static_cast<const float*>(p.out) + row * p.valueDim;
    const float* gradOut = c.task.problem->gradOut + row * p.valueDim;
    const bool seen = p.lse[row] != -kInfinity;
    Vec delta = zero();
    for (int64_t d = 0; d < p.valueDim; d += kLanes) {
      const int64_t n = lanesLeft(d, p.valueDim);
      const Vec g = seen ? loadFirst(gradOut + d, n) : zero();
      store(c.gradOut + r * c.valueDims + d, g);
      delta = fma(g, loadFirst(out + d, n), delta);
    }
    for (int64_t d = 0; d < p.headDim; d += kLanes)
      store(c.q + r * c.dims + d, loadFirst(q + d, lanesLeft(d, p.headDim)));
    c.delta[r] = reduceAdd(delta);
    c.shift[r] = seen ? -p.lse[row] * kLog2e : -kInfinity;
  }
  clearFloats(c.gradQ, c.rows * c.dims);
}

// to[d][64]: rows of 64 tokens at most across.
GQA_INLINE void packAcross(const float* rows, int64_t stride, int64_t tokens, int64_t dims, float* to) {
  alignas(64) float tile[kLanes * kLanes];
  for (int64_t first = 0; first < tokens; first += kLanes)
    for (int64_t d = 0; d < dims; d += kLanes) {
      const int64_t n = lanesLeft(d, dims);
      const char* from = reinterpret_cast<const char*>(rows + first * stride + d);
      transposeAs(DType::f32, from, stride, lanesLeft(first, tokens), n, tile);
      for (int64_t i = 0; i < n; ++i) store(to + (d + i) * kMaxBlockTokens + first, load(tile + i * kLanes));
    }
}

GQA_INLINE void packKeys(const BackwardContext& c, int64_t first, int64_t tokens) {
  const AttendProblem& p = c.p;
  const float* k = static_cast<const float*>(p.k) + c.keyIndex(first) * p.headDim;
  const float* v = static_cast<const float*>(p.v) + c.keyIndex(first) * p.valueDim;
  const int64_t keyStride = p.kvHeads * p.headDim;
  packAcross(k, keyStride, tokens, p.headDim, c.keysAcross);
  packAcross(v, p.kvHeads * p.valueDim, tokens, p.valueDim, c.valuesAcross);
  for (int64_t i = 0; i < tokens; ++i)
    for (int64_t d = 0; d < p.headDim; d += kLanes)
      store(c.keys + i * c.dims + d, loadFirst(k + i * keyStride + d, lanesLeft(d, p.headDim)));
}

// S and dP to P and dS.
template <bool kSoftcap>
GQA_INLINE void gradTile(const BackwardContext& c, int64_t row, int64_t rows, int64_t first, int64_t last) {
  const Vec scale = splat(c.p.scale * (kSoftcap ? 1 / c.p.softcap : kLog2e)), cap = splat(c.p.softcap * kLog2e);
  for (int64_t r = 0; r < rows; ++r) {
    float* weights = c.weights + r * kScoreStride;
    float* gradScores = c.gradScores + r * kScoreStride;
    const Vec shift = splat(c.shift[row + r]), delta = splat(c.delta[row + r]);
    for (int64_t i = first; i < last; i += kLanes) {
      const Vec s = load(weights + i), above = sub(load(gradScores + i), delta);
      if (kSoftcap) {
        const Vec bent = tanh(mul(s, scale)), w = exp2(fma(bent, cap, shift));
        store(weights + i, w);
        store(gradScores + i, mul(mul(w, above), sub(splat(1), mul(bent, bent))));
      } else {
        const Vec w = exp2(fma(s, scale, shift));
        store(weights + i, w);
        store(gradScores + i, mul(w, above));
      }
    }
  }
}

// Rows [row, row + rows) of the task against keys [keys.first, keys.last) of the block at `first`.
GQA_INLINE void backwardTile(const BackwardContext& c, int64_t row, int64_t rows, int64_t first, KeyRange keys,
                             bool someHidden) {
  const int64_t lo = keys.first - first, hi = keys.last - first;
  const int64_t from = lo / kLanes * kLanes, to = roundUp(hi, kLanes), stride = kScoreStride;
  const float* q = c.q + row * c.dims;
  const float* gradOut = c.gradOut + row * c.valueDims;
  stridedProduct({q, c.dims, 1, c.keysAcross + from, stride, c.weights + from, stride, c.p.headDim, false}, rows,
                 (to - from) / kLanes);
  stridedProduct(
      {gradOut, c.valueDims, 1, c.valuesAcross + from, stride, c.gradScores + from, stride, c.p.valueDim, false}, rows,
      (to - from) / kLanes);
  if (c.p.softcap > 0)
    gradTile<true>(c, row, rows, from, to);
  else
    gradTile<false>(c, row, rows, from, to);
  if (someHidden) {
    ScoreTile t = {&c.p,  c.weights, rows, c.task.batch, c.task.kvHead, c.group, c.task.firstToken * c.group + row,
                   first, from,      to};
    applyBounds(t, keys.first, keys.last, 0);
    t.scores = c.gradScores;
    applyBounds(t, keys.first, keys.last, 0);
  }
  stridedProduct(
      {c.weights + lo, 1, stride, gradOut, c.valueDims, c.gradValues + lo * c.valueDims, c.valueDims, rows, true},
      hi - lo, c.valueDims / kLanes);
  stridedProduct({c.gradScores + lo, 1, stride, q, c.dims, c.gradKeys + lo * c.dims, c.dims, rows, true}, hi - lo,
                 c.dims / kLanes);
  stridedProduct(
      {c.gradScores + lo, stride, 1, c.keys + lo * c.dims, c.dims, c.gradQ + row * c.dims, c.dims, hi - lo, true}, rows,
      c.dims / kLanes);
}

// All rows of the task against keys [first, last) of one block.
GQA_NOINLINE void backwardBlock(const BackwardContext& c, int64_t first, int64_t last) {
  for (int64_t row = 0, rows; row < c.rows; row += rows) {
    rows = least(kBackwardRows, c.rows - row);
    RowSpan at = c.positions(row, rows);
    KeyRange keys = visibleKeys(c.p, at.low, at.high, first, last);
    bool whole = allVisible(c.p, at.low, at.high, keys);
    if (!whole && rows > kCutRows) {
      rows = kCutRows;
      at = c.positions(row, rows);
      keys = visibleKeys(c.p, at.low, at.high, first, last);
      whole = allVisible(c.p, at.low, at.high, keys);
    }
    if (!keys.empty()) backwardTile(c, row, rows, first, keys, !whole);
  }
}

void attendBackwardTask(const AttendBackwardTask& task) {
  const BackwardContext c(task);
  const AttendProblem& p = c.p;
  packRows(c);
  for (int64_t first = 0; first < p.keyTokens; first += kMaxBlockTokens) {
    const int64_t last = least(first + kMaxBlockTokens, p.keyTokens);
    clearFloats(c.gradKeys, (last - first) * c.dims);
    clearFloats(c.gradValues, (last - first) * c.valueDims);
    const RowSpan at = c.positions(0, c.rows);
    if (c.rows > 0 && !visibleKeys(p, at.low, at.high, first, last).empty()) {
      packKeys(c, first, last - first);
      prefetchKeys(c, last, least(last + kMaxBlockTokens, p.keyTokens));
      backwardBlock(c, first, last);
    } else if (task.add) {
      continue;
    }
    for (int64_t key = first; key < last; ++key) {
      const int64_t index = c.keyIndex(key);
      giveRow(task.gradK + index * p.headDim, c.gradKeys + (key - first) * c.dims, p.scale, p.headDim, task.add);
      giveRow(task.gradV + index * p.valueDim, c.gradValues + (key - first) * c.valueDims, 1, p.valueDim, task.add);
    }
  }
  for (int64_t r = 0; r < c.rows; ++r) {
    if (r + kAheadRows < c.rows)
      prefetchFloats(task.problem->gradQ + c.rowIndex(r + kAheadRows) * p.headDim, p.headDim);
    giveRow(task.problem->gradQ + c.rowIndex(r) * p.headDim, c.gradQ + r * c.dims, p.scale, p.headDim, false);
  }
}

}  // namespace
}  // namespace gqa
