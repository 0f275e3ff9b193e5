// Attention of a group: rows [rows of a tile] = (query, head of the group) against blocks of keys, online softmax.
//   S = Q K^T (scale folded into Q), m' = max(m, S), P = 2^(S - m'), l' = l 2^(m - m') + sum P, O' = O 2^(m - m') + P V
// One pass over K and V serves every row of the task; decode and prefill differ only in how many rows there are.
// Scores, sums and outputs are f32; K and V are f32, f16 or bf16 panels, packed on the way in where they are tensors.
#pragma once

namespace gqa {
namespace {

struct KeyRange {
  int64_t first, last;
  GQA_INLINE bool empty() const { return first >= last; }
};

GQA_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
GQA_INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

// Keys within [first, last) that some row at positions [low, high] may see: one range, gaps between sinks and window
// included where a block holds both.
GQA_INLINE KeyRange visibleKeys(const AttendProblem& p, int64_t low, int64_t high, int64_t first, int64_t last) {
  const int64_t end = p.causal ? least(last, high + 1) : last;
  const int64_t windowBegin = most(first, low - p.window + 1), sinkEnd = least(end, p.sinkTokens);
  if (first < sinkEnd) return {first, windowBegin < end ? end : sinkEnd};
  return {windowBegin, end};
}

// True if every row at positions [low, high] sees every key of the range.
GQA_INLINE bool allVisible(const AttendProblem& p, int64_t low, int64_t high, KeyRange keys) {
  const bool past = !p.causal || keys.last <= low + 1;
  return past && (keys.last <= p.sinkTokens || most(keys.first, p.sinkTokens) > high - p.window);
}

// One block of one KV head, ready for the microkernel.
struct KeyBlock {
  BlockLayout layout;
  const char* k;
  const char* v;
  const char* next;  // the block after it where it should be prefetched, else null
};

// A task with its scratch laid out; see attendScratchFloats.
struct AttendContext {
  const AttendTask& task;
  const AttendProblem& problem;
  int64_t group, blockTokens;
  int64_t queryStride;  // floats of a packed query row
  bool plainScores;     // no feature touches scores before the softmax: log2 e is folded into the query
  float* query;
  float* scores;
  float* factors;  // [kMaxTileRows], the rescaling of each row
  char* packed;    // one block in f32, where keys are tensors

  GQA_INLINE int64_t position(int64_t row) const {
    return (task.firstRow + row) / group + problem.keyTokens - problem.queryTokens;
  }
};

GQA_INLINE BlockLayout tensorBlock(const AttendProblem& p) {
  return {DType::f32, p.headDim, p.valueDim, kMaxBlockTokens};
}

int64_t attendScratchFloats(const AttendProblem& p, int64_t rows) {
  const int64_t packed = p.arena.base ? 0 : tensorBlock(p).bytes() / 4;
  return roundUp(rows * roundUp(p.headDim, 2), kLanes) + (kScoreStride + kLanes) * kMaxTileRows + packed;
}

GQA_INLINE AttendContext makeContext(const AttendTask& task) {
  const AttendProblem& p = *task.problem;
  const int64_t queryStride = roundUp(p.headDim, 2);
  float* scores = task.scratch + roundUp(task.rows * queryStride, kLanes);
  float* factors = scores + kScoreStride * kMaxTileRows;
  const bool plain = p.softcap == 0 && !p.bias.data && !p.alibiSlopes;
  return {task,
          p,
          p.heads / p.kvHeads,
          p.arena.base ? p.arena.layout.blockTokens : kMaxBlockTokens,
          queryStride,
          plain,
          task.scratch,
          scores,
          factors,
          reinterpret_cast<char*>(factors + kLanes * kMaxTileRows)};
}

// query[row][d] = q[b, i, h, d] * scale, rows padded to an even width with zeros.
GQA_INLINE void packQuery(const AttendContext& c) {
  const AttendProblem& p = c.problem;
  const Vec scale = splat(c.plainScores ? p.scale * kLog2e : p.scale);
  for (int64_t r = 0; r < c.task.rows; ++r) {
    const int64_t row = c.task.firstRow + r, head = c.task.kvHead * c.group + row % c.group;
    const int64_t index = ((c.task.batch * p.queryTokens + row / c.group) * p.heads + head) * p.headDim;
    float* to = c.query + r * c.queryStride;
    for (int64_t d = 0; d < p.headDim; d += kLanes) {
      const int64_t n = lanesLeft(d, p.headDim);
      storeFirst(to + d, n, mul(loadAs(p.qType, elementAt(p.q, p.qType, index + d), n), scale));
    }
    if (c.queryStride > p.headDim) to[p.headDim] = 0;
  }
}

// The block that starts at position `first`, straight from the arena.
GQA_INLINE KeyBlock arenaBlock(const AttendContext& c, int64_t first) {
  const ArenaView& arena = c.problem.arena;
  const BlockLayout& layout = arena.layout;
  const int64_t ordinal = first / c.blockTokens;
  const char* block = arena.block(c.task.kvHead, c.problem.table.slot(ordinal));
  const bool more = c.task.prefetch && first + c.blockTokens < c.task.lastKey;
  const char* next = more ? arena.block(c.task.kvHead, c.problem.table.slot(ordinal + 1)) : nullptr;
  return {layout, block, block + layout.valueOffset(), next};
}

// Keys [keys.first, keys.last) of tensors k and v packed as f32 panels of the block that starts at `first`.
GQA_INLINE KeyBlock packedBlock(const AttendContext& c, int64_t first, KeyRange keys) {
  const AttendProblem& p = c.problem;
  const BlockLayout layout = tensorBlock(p);
  const int64_t from = keys.first / kLanes * kLanes;  // panels start at a multiple of 16 tokens
  for (int64_t j = from; j < keys.last; j += kLanes) {
    const int64_t token = c.task.batch * p.keyTokens + j, tokens = lanesLeft(j, keys.last);
    const int64_t keyStride = p.kvHeads * p.headDim, valueStride = p.kvHeads * p.valueDim;
    const char* k = elementAt(p.k, p.kvType, token * keyStride + c.task.kvHead * p.headDim);
    const char* v = elementAt(p.v, p.kvType, token * valueStride + c.task.kvHead * p.valueDim);
    packVector(layout.keys(), c.packed, (j - first) / kLanes, p.kvType, k, keyStride, tokens);
    for (int64_t t = 0; t < tokens; ++t)
      packStep(layout.values(), c.packed + layout.valueOffset(), j - first + t, p.kvType,
               elementAt(v, p.kvType, t * valueStride));
  }
  return {layout, c.packed, c.packed + layout.valueOffset(), nullptr};
}

// Scores to weights, in place: folds the tile into max and sum and leaves each row's rescaling in c.factors.
GQA_INLINE void softmaxTile(const AttendContext& c, const ScoreTile& t, int64_t tileRow) {
  alignas(64) float before[kLanes], after[kLanes];
  float* max = c.task.states.max + tileRow;
  float* sum = c.task.states.sum + tileRow;
  for (int64_t r = 0; r < t.rows; ++r) {
    Vec m = load(t.row(r) + t.firstColumn);
    for (int64_t i = t.firstColumn + kLanes; i < t.lastColumn; i += kLanes) m = gqa::max(load(t.row(r) + i), m);
    const float highest = reduceMax(m);
    before[r] = max[r];
    max[r] = max[r] > highest ? max[r] : highest;
    after[r] = softmaxBase(max[r]);
  }
  store(c.factors, exp2(sub(loadFirst(before, t.rows), loadFirst(after, t.rows))));
  for (int64_t r = 0; r < t.rows; ++r) {
    const Vec base = splat(after[r]);
    Vec total = zero();
    for (int64_t i = t.firstColumn; i < t.lastColumn; i += kLanes) {
      const Vec weight = exp2(sub(load(t.row(r) + i), base));
      total = add(total, weight);
      store(t.row(r) + i, weight);
    }
    sum[r] = sum[r] * c.factors[r] + reduceAdd(total);
  }
}

// O = O * scale + P V over columns [lo, hi), for rows of weights that lie aStride apart.
GQA_INLINE void accumulateValues(const AttendContext& c, const KeyBlock& b, const float* weights, int64_t rows,
                                 int64_t lo, int64_t hi, float* out, const float* scale, const char* ahead) {
  panelsProduct(b.layout.values(), b.v,
                {weights, kScoreStride, nullptr, 0, lo, hi, out, c.task.states.stride, scale, {ahead, 0}}, rows, 0,
                b.layout.values().vectors());
}

// False if a value of columns [lo, hi) is NaN or Infinity: v * 0 is then NaN.
GQA_INLINE bool valuesFinite(const KeyBlock& b, int64_t lo, int64_t hi) {
  static const float zeros[kMaxBlockTokens] = {0};
  alignas(64) float product[kPanelLanes];
  const PanelLayout values = b.layout.values();
  float total = 0;
  for (int64_t v = 0; v < values.vectors(); v += kPanelLanes / kLanes) {
    const int64_t vectors = values.rowVectors(v);
    panelsProduct(values, b.v, {zeros, 0, nullptr, 0, lo, hi, product, 0, nullptr, {}}, 1, v, v + vectors);
    for (int64_t i = 0; i < vectors; ++i) total += reduceAdd(load(product + i * kLanes));
  }
  return total == 0;
}

// O += P V without ever touching a hidden value, so that a NaN or an Infinity there stays hidden.
GQA_INLINE void accumulateGuarded(const AttendContext& c, const KeyBlock& b, const ScoreTile& t, float* out, int64_t lo,
                                  int64_t hi) {
  const float one = 1;
  for (int64_t r = 0; r < t.rows; ++r) {
    float* row = out + r * c.task.states.stride;
    accumulateValues(c, b, t.row(r), 1, lo, lo, row, c.factors + r, nullptr);  // an empty run: the rescaling alone
    for (int64_t l = lo; l < hi; ++l)
      if (sees(t, r, l)) accumulateValues(c, b, t.row(r), 1, l, l + 1, row, &one, nullptr);
  }
}

// Scores of a tile, from the product to masked log2 units. False if no key is visible.
GQA_INLINE bool scoreTile(const AttendContext& c, const KeyBlock& b, const ScoreTile& t, int64_t tileRow, KeyRange keys,
                          bool bounded) {
  const AttendProblem& p = c.problem;
  if (p.mask.data && maskHidesAll(t, keys.first - t.firstKey, keys.last - t.firstKey)) return false;
  const PanelLayout k = b.layout.keys();
  const Ahead ahead = {tileRow == 0 ? b.next : nullptr, k.bytes()};
  panelProduct(k.dtype,
               {c.query + tileRow * c.queryStride, c.queryStride, b.k + k.vectorOffset(t.firstColumn / kLanes),
                k.rowBytes(0), 0, k.paddedSteps(), t.scores + t.firstColumn, kScoreStride, nullptr, ahead},
               t.rows, (t.lastColumn - t.firstColumn) / kLanes);
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
  softmaxTile(c, t, tileRow);
  if (p.dropout > 0) applyDropout(t);

  float* out = task.states.out + tileRow * task.states.stride;
  if ((someHidden || p.mask.data || p.bias.data) && !valuesFinite(b, lo, hi))
    return accumulateGuarded(c, b, t, out, lo, hi);
  const char* ahead = tileRow == 0 && b.next ? b.next + b.layout.valueOffset() : nullptr;
  accumulateValues(c, b, t.scores, rows, lo, hi, out, c.factors, ahead);
}

void attendTask(const AttendTask& task) {
  const AttendContext c = makeContext(task);
  const AttendProblem& p = c.problem;
  const int64_t low = c.position(0), high = c.position(task.rows - 1);
  const int64_t tiles = (task.rows + kMaxTileRows - 1) / kMaxTileRows, tileRows = (task.rows + tiles - 1) / tiles;
  packQuery(c);
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
    for (int64_t r = 0; r < task.rows; r += tileRows) attendTile(c, block, first, r, least(tileRows, task.rows - r));
  }
}

}  // namespace
}  // namespace gqa
