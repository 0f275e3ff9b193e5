// Attention of a group: rows [rows of a tile] = (query, head of the group) against blocks of keys, online softmax.
//   S = Q K^T (scale folded into Q), m' = max(m, S), P = 2^(S - m'), l' = l 2^(m - m') + sum P, O' = O 2^(m - m') + P V
// One pass over K and V serves every row of the task; decode and prefill differ only in how many rows there are.
// Scores, sums and outputs are f32; K and V are f32, f16 or bf16 panels, packed on the way in where they are tensors.
#pragma once

namespace gqa {
namespace {

// Rows of a tile at most: its scores stay in L1 beside a panel of the block, which every sub-tile reads.
constexpr int64_t kTileRows = 24;

int64_t attendScratchFloats(const AttendProblem& p, int64_t rows) {
  const int64_t packed = p.arena.base ? 0 : tensorBlock(p).bytes() / 4;
  return roundUp(rows * roundUp(p.headDim, 2), kLanes) + rows * kLanes + 2 * kScoreStride * kTileRows +
         roundUp(kTileRows, kLanes) + packed;
}

GQA_INLINE AttendContext makeContext(const AttendTask& task) {
  const AttendProblem& p = *task.problem;
  const int64_t queryStride = roundUp(p.headDim, 2);
  float* sums = task.scratch + roundUp(task.rows * queryStride, kLanes);
  float* scores = sums + task.rows * kLanes;
  float* weights = scores + kScoreStride * kTileRows;
  float* factors = weights + kScoreStride * kTileRows;
  const bool plain = p.softcap == 0 && !p.bias.data && !p.alibiSlopes;
  return {task,
          p,
          p.heads / p.kvHeads,
          p.arena.base ? p.arena.layout.blockTokens : kMaxBlockTokens,
          queryStride,
          plain,
          task.scratch,
          sums,
          scores,
          weights,
          factors,
          reinterpret_cast<char*>(factors + roundUp(kTileRows, kLanes))};
}

// A token's rows of the group: the next token's lie too far off for the hardware's prefetch.
GQA_INLINE void prefetchQuery(const AttendContext& c, int64_t token) {
  const AttendProblem& p = c.problem;
  if (token >= p.queryTokens) return;
  const int64_t index = ((c.task.batch * p.queryTokens + token) * p.heads + c.task.kvHead * c.group) * p.headDim;
  prefetchRow(elementAt(p.q, p.qType, index), c.group * p.headDim * elementBytes(p.qType));
}

// query[row][d] = q[b, i, h, d] * scale, rows padded to an even width with zeros.
GQA_INLINE void packQuery(const AttendContext& c) {
  const AttendProblem& p = c.problem;
  const Vec scale = splat(c.plainScores ? p.scale * kLog2e : p.scale);
  for (int64_t r = 0; r < c.task.rows; ++r) {
    const int64_t row = c.task.firstRow + r, head = c.task.kvHead * c.group + row % c.group;
    const int64_t index = ((c.task.batch * p.queryTokens + row / c.group) * p.heads + head) * p.headDim;
    float* to = c.query + r * c.queryStride;
    if (row % c.group == 0) prefetchQuery(c, row / c.group + 1);
    for (int64_t d = 0; d < p.headDim; d += kLanes) {
      const int64_t n = lanesLeft(d, p.headDim);
      storeFirst(to + d, n, mul(loadAs(p.qType, elementAt(p.q, p.qType, index + d), n), scale));
    }
    if (c.queryStride > p.headDim) to[p.headDim] = 0;
  }
}

// Scores of a tile, from the product to masked log2 units. False if no key is visible.
GQA_INLINE bool scoreTile(const AttendContext& c, const KeyBlock& b, const ScoreTile& t, int64_t tileRow, KeyRange keys,
                          bool bounded) {
  const AttendProblem& p = c.problem;
  if (p.mask.data && maskHidesAll(t, keys.first - t.firstKey, keys.last - t.firstKey)) return false;
  scoreProduct(c, b, t, tileRow);
  if (p.softcap > 0) applySoftcap(t);
  if (p.alibiSlopes) applyAlibi(t);
  if (p.bias.data) applyBias(t);
  if (p.mask.data) applyMask(t);
  if (bounded) applyBounds(t, keys.first, keys.last);
  if (!c.plainScores) toLog2(t);
  return true;
}

// Rows [tileRow, tileRow + rows) of the task against one block.
GQA_INLINE void attendTile(const AttendContext& c, const KeyBlock& b, int64_t first, int64_t tileRow, int64_t rows) {
  const AttendTask& task = c.task;
  const AttendProblem& p = c.problem;
  const int64_t low = c.position(tileRow), high = c.position(tileRow + rows - 1);
  const KeyRange keys =
      visibleKeys(p, low, high, most(first, task.firstKey), least(first + c.blockTokens, task.lastKey));
  if (keys.empty()) return;
  const int64_t lo = keys.first - first, hi = keys.last - first;
  const ScoreTile t = {&p,
                       c.scores,
                       rows,
                       task.batch,
                       task.kvHead,
                       c.group,
                       task.firstRow + tileRow,
                       first,
                       lo / kLanes * kLanes,
                       roundUp(hi, kLanes)};
  const bool someHidden = !allVisible(p, low, high, keys);
  if (!scoreTile(c, b, t, tileRow, keys, someHidden || lo > t.firstColumn || hi < t.lastColumn)) return;
  const float* factors =
      softmaxTile(t, task.states.max + tileRow, c.sums + tileRow * kLanes, c.weights, c.factors) ? c.factors : nullptr;
  if (p.dropout > 0) applyDropout(t, c.weights);

  float* out = task.states.out + tileRow * task.states.stride;
  if ((someHidden || p.mask.data || p.bias.data) && !valuesFinite(b, lo, hi))
    return valueProductGuarded(c, b, t, out, lo, hi);
  const char* ahead = tileRow == 0 && b.next ? b.next + b.layout.valueOffset() : nullptr;
  valueProduct(c, b, c.weights, rows, lo, hi, out, factors, ahead);
}

void attendTask(const AttendTask& task) {
  const AttendContext c = makeContext(task);
  const AttendProblem& p = c.problem;
  const int64_t low = c.position(0), high = c.position(task.rows - 1);
  const int64_t tiles = (task.rows + kTileRows - 1) / kTileRows, tileRows = (task.rows + tiles - 1) / tiles;
  packQuery(c);
  for (int64_t r = 0; r < task.rows; ++r) storeFirst(c.sums + r * kLanes, kLanes, loadFirst(task.states.sum + r, 1));
  for (int64_t first = task.firstKey / c.blockTokens * c.blockTokens; first < task.lastKey; first += c.blockTokens) {
    const int64_t windowBegin = low - p.window + 1;
    if (first >= p.sinkTokens &&
        first + c.blockTokens <= windowBegin) {  // no row sees it: on to the first that is seen
      first = (windowBegin / c.blockTokens - 1) * c.blockTokens;
      continue;
    }
    const KeyRange keys =
        visibleKeys(p, low, high, most(first, task.firstKey), least(first + c.blockTokens, task.lastKey));
    if (keys.empty()) continue;
    const KeyBlock block = p.arena.base ? arenaBlock(c, first) : packedBlock(c, first, keys);
    for (int64_t i = 0; i < tiles; ++i) {
      const int64_t row = i * tileRows;
      if (!p.arena.base) prefetchTensors(c, first + c.blockTokens, i, tiles);
      attendTile(c, block, first, row, least(tileRows, task.rows - row));
    }
  }
  for (int64_t r = 0; r < task.rows; ++r) task.states.sum[r] = reduceAdd(load(c.sums + r * kLanes));
}

}  // namespace
}  // namespace gqa
