// Attention of a group: rows [rows of a tile] = (query, head of the group) against blocks of keys, online softmax.
//   S = Q K^T, W = 2^(S - m), l += sum W, O += W V, the state (m, l, O) rescaled where m moves (softmax.h)
// One pass over K and V serves every row of the task; decode and prefill differ only in how many rows there are.
// Scores, sums and outputs are f32; K and V are f32, f16 or bf16 panels, packed on the way in where they are tensors,
// or quantised.
#pragma once

namespace gqa {
namespace {

GQA_INLINE int64_t queryStride(const AttendProblem& p, const Forms& forms) {
  if (forms.keys == Form::integers) return IntegerQueryLayout{p.keyType(), p.headDim}.floats();
  return forms.keys == Form::pairs || forms.split ? roundUp(p.headDim, kLanes) / 2 : roundUp(p.headDim, 2);
}

// A task's scratch in floats: where each part begins. Queries and weights that are split in two terms take twice the
// room, and so do the blocks that they meet.
struct ScratchMap {
  int64_t query, sums, minimums, spreads, highest, scores, weights, weightPairs, factors, rotated, keyTerms, queryWords,
      packed, terms, total;

  GQA_INLINE ScratchMap(const AttendProblem& p, int64_t rows, const Forms& forms) {
    const int64_t copies = forms.split ? 2 : 1;
    const bool onTiles = tilesServe(p, rows) && (forms.pairs() || forms.split);
    const int64_t places = onTiles ? kSpanBlocks : 1;
    const BlockLayout block = multipliedLayout(p, forms.keys, forms.values);
    const bool stored = p.arena.base && block.keyType == p.keyType() && block.valueType == p.valueType();
    const bool integerKeys = forms.keys == Form::integers, integerValues = forms.values == Form::integers;
    const IntegerQueryLayout integers = {p.keyType(), p.headDim};
    total = 0;
    query = take(copies * rows * queryStride(p, forms));
    sums = take(rows * kLanes);
    minimums = take(integerValues ? rows * minimumGroups(p) * kLanes : 0);
    spreads = take(p.statistics.data ? rows * kLanes : 0);
    highest = take(p.statistics.data ? rows * kLanes : 0);
    scores = take(kScoreStride * kTileRows);
    weights = take(kScoreStride * kTileRows);
    weightPairs = take(copies * kPairStride * kTileRows / 2);
    factors = take(kTileRows);
    rotated = take(p.arena.base && p.arena.layout.rotateKeys ? p.headDim : 0);
    keyTerms = take(integerKeys ? integers.blockFloats() : 0);
    queryWords = take(integerKeys ? kTileRows * integers.stride() : 0);
    packed = take(stored ? 0 : places * block.bytes() / 4);
    terms = take(forms.split ? places * splitLayout(block).bytes() / 2 : 0);
  }

 private:
  GQA_INLINE int64_t take(int64_t floats) {
    const int64_t at = total;
    total += roundUp(floats, kLanes);
    return at;
  }
};

int64_t attendScratchFloats(const AttendProblem& p, int64_t rows) {
  return ScratchMap(p, rows, formsOf(p, rows)).total;
}

GQA_INLINE AttendContext makeContext(const AttendTask& task) {
  const AttendProblem& p = *task.problem;
  const bool plain = p.softcap == 0 && !p.bias.data && !p.alibiSlopes;
  const bool rotates = p.arena.base && p.arena.layout.rotateKeys;
  const Forms forms = formsOf(p, task.rows);
  AttendContext c = {task, p};
  c.group = p.heads / p.kvHeads;
  c.blockTokens = p.arena.base ? p.arena.layout.blockTokens : kMaxBlockTokens;
  c.keys = forms.keys;
  c.values = forms.values;
  c.queryStride = queryStride(p, forms);
  // Scaled by the softmax only where no score is touched in between, nor an -Infinity turned by a scale of 0 or less.
  const float scale = plain ? p.scale * kLog2e : p.scale;
  const bool exactQuery = c.keys == Form::pairs && p.qType == DType::bf16 && !rotates;
  const bool late = exactQuery && plain && scale > 0;
  c.queryScale = exactQuery ? 1 : scale;
  c.scoreScale = exactQuery && !late ? scale : 1;
  c.softmaxScale = late ? scale : 1;
  c.plainScores = plain;
  const ScratchMap map(p, task.rows, forms);
  float* base = task.scratch;
  c.query = base + map.query;
  c.sums = base + map.sums;
  c.minimums = base + map.minimums;
  c.spreads = base + map.spreads;
  c.highest = base + map.highest;
  c.scores = base + map.scores;
  c.weights = base + map.weights;
  c.weightPairs = reinterpret_cast<uint16_t*>(base + map.weightPairs);
  c.factors = base + map.factors;
  if (rotates) c.rotated = base + map.rotated;
  c.keyTerms = base + map.keyTerms;
  c.queryWords = base + map.queryWords;
  c.packed = reinterpret_cast<char*>(base + map.packed);
  if (forms.split) c.terms = reinterpret_cast<char*>(base + map.terms);
  return c;
}

// A token's rows of the group: the next token's lie too far off for the hardware's prefetch.
GQA_INLINE void prefetchQuery(const AttendContext& c, int64_t token) {
  const AttendProblem& p = c.problem;
  if (token >= p.queryTokens) return;
  const int64_t index = ((c.task.batch * p.queryTokens + token) * p.heads + c.task.kvHead * c.group) * p.headDim;
  prefetchRow(elementAt(p.q, p.qType, index), c.group * p.headDim * elementBytes(p.qType));
}

// Elements [d, d + 16) of a query times the scale, turned where keys are.
GQA_INLINE Vec queryLanes(const AttendContext& c, const char* q, int64_t d) {
  const AttendProblem& p = c.problem;
  if (c.rotated) return loadFirst(c.rotated + d, lanesLeft(d, p.headDim));
  return mul(loadAs(p.qType, elementAt(q, p.qType, d), lanesLeft(d, p.headDim)), splat(c.queryScale));
}

GQA_INLINE void rotateQuery(const AttendContext& c, const char* q) {
  const AttendProblem& p = c.problem;
  for (int64_t d = 0; d < p.headDim; d += kLanes)
    store(c.rotated + d, mul(loadAs(p.qType, elementAt(q, p.qType, d), lanesLeft(d, p.headDim)), splat(c.queryScale)));
  rotateRow(c.rotated, p.headDim);
}

// query[row][d] = q[b, i, h, d] * queryScale, as f32 or bf16, rows padded with zeros, or as integer_query.h has it.
GQA_INLINE void packQuery(const AttendContext& c) {
  const AttendProblem& p = c.problem;
  for (int64_t r = 0; r < c.task.rows; ++r) {
    const int64_t row = c.task.firstRow + r, head = c.task.kvHead * c.group + row % c.group;
    const int64_t index = ((c.task.batch * p.queryTokens + row / c.group) * p.heads + head) * p.headDim;
    const char* q = elementAt(p.q, p.qType, index);
    float* to = c.query + r * c.queryStride;
    if (row % c.group == 0) prefetchQuery(c, row / c.group + 1);
    if (c.rotated) rotateQuery(c, q);
    for (int64_t d = 0; d < p.headDim; d += kLanes) {
      const Vec lanes = queryLanes(c, q, d);
      uint16_t* halves = reinterpret_cast<uint16_t*>(to) + d;
      if (c.keys == Form::pairs)
        roundBf16(halves, lanes);
      else if (c.split())
        splitBf16(lanes, halves, halves + 2 * c.task.rows * c.queryStride);
      else if (c.keys == Form::integers)
        store(to + d, lanes);
      else
        storeFirst(to + d, lanesLeft(d, p.headDim), lanes);
    }
    if (c.keys == Form::integers)
      normaliseQuery({p.keyType(), p.headDim}, to);
    else if (c.queryStride > p.headDim && c.keys == Form::floats && !c.split())
      to[p.headDim] = 0;
  }
}

// The block at `first`; one that is packed or widened goes into the given place of the span.
GQA_INLINE KeyBlock keyBlock(const AttendContext& c, int64_t first, KeyRange keys, int64_t place) {
  char* to = c.packed + place * multipliedLayout(c.problem, c.keys, c.values).bytes();
  return c.problem.arena.base ? widenedBlock(c, first, keys, to) : packedBlock(c, first, keys, to);
}

// Scores of a tile, from the product to masked log2 units. False if no key is visible.
GQA_INLINE bool scoreTile(const AttendContext& c, const KeyBlock& b, const ScoreTile& t, int64_t tileRow, KeyRange keys,
                          bool bounded) {
  const AttendProblem& p = c.problem;
  if (p.mask.data && maskHidesAll(t, keys.first - t.firstKey, keys.last - t.firstKey)) return false;
  if (c.keys == Form::integers)
    integerScores(c, b, t, tileRow);
  else if (c.tiles())
    tileScores(c, b, t, tileRow);
  else
    scoreProduct(c, b, t, tileRow);
  if (c.scoreScale != 1) multiplyScores(t, c.scoreScale);
  if (p.softcap > 0) applySoftcap(t);
  if (p.alibiSlopes) applyAlibi(t);
  if (p.bias.data) applyBias(t);
  if (p.mask.data) applyMask(t);
  if (bounded) applyBounds(t, keys.first, keys.last);
  if (!c.plainScores) multiplyScores(t, kLog2e);
  return true;
}

// Keys whose values are multiplied together.
GQA_INLINE int64_t valueRun(const AttendContext& c) {
  if (c.tiles()) return tileValueRun(c.blockTokens);
  return c.values == Form::pairs ? 2 : 1;
}

// A block of keys, from position `first` on, as it is stored and as the products see it.
struct SpanBlock {
  KeyBlock stored, multiplied;
  int64_t first;
};

// Scores of a tile to weights; whether a row's base moved. `whole`: no column is hidden from any row.
GQA_INLINE bool softmax(const AttendContext& c, const ScoreTile& t, int64_t tileRow, bool whole) {
  const RowStates& states = c.task.states;
  RowBases rows = {states.max + tileRow, c.sums + tileRow * kLanes, c.factors, nullptr, nullptr, nullptr};
  if (!c.problem.statistics.data) return softmaxTile<Observe::nothing>(t, c.softmaxScale, rows, c.weights);
  rows.spreads = c.spreads + tileRow * kLanes;
  rows.highest = c.highest + tileRow * kLanes;
  rows.statistics = states.statistics + tileRow;
  if (whole) return softmaxTile<Observe::whole>(t, c.softmaxScale, rows, c.weights);
  return softmaxTile<Observe::hidden>(t, c.softmaxScale, rows, c.weights);
}

// Rows [tileRow, tileRow + rows) of the task against one block. On tiles the product with its values waits.
GQA_INLINE void attendTile(const AttendContext& c, const SpanBlock& block, int64_t tileRow, int64_t rows,
                           WaitingWeights& waiting) {
  const KeyBlock& b = block.multiplied;
  const int64_t first = block.first;
  const AttendTask& task = c.task;
  const AttendProblem& p = c.problem;
  const auto [low, high] = c.positions(tileRow, rows);
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
  const bool bounded = someHidden || lo > t.firstColumn || hi < t.lastColumn;
  if (!scoreTile(c, b, t, tileRow, keys, bounded)) return;
  const bool open = !p.mask.data && !p.bias.data;
  const float* factors = softmax(c, t, tileRow, open && !bounded) ? c.factors : nullptr;
  if (p.statistics.data) observeTile(c, t, low, keys, open && !someHidden, task.states.statistics + tileRow);
  if (p.dropout > 0) applyDropout(t, c.weights);

  float* out = task.states.out + tileRow * task.states.stride;
  const char* ahead = tileRow == 0 ? b.nextV : nullptr;
  if (c.values == Form::integers) return integerValues(c, b, t, out, factors, ahead);
  if (c.tiles() && factors) {
    rescale(c, waiting, rows, out);
    for (int64_t r = 0; r < rows; ++r) c.factors[r] = 1;
  }
  const int64_t run = valueRun(c), from = lo / run * run, to = roundUp(hi, run);
  const bool partial = lo > from || hi < to;
  if ((someHidden || partial || p.mask.data || p.bias.data) && !valuesFinite(b, from, to))
    return valueProductGuarded(c, block.stored, t, out, lo, hi);
  if (c.tiles()) return holdWeights(c, b, t, from, to, ahead, waiting);
  if (c.values == Form::pairs) return valuePairsProduct(c, b, t, from, to, out, factors, ahead);
  valueProduct(c, b, {c.weights, kScoreStride, false}, rows, lo, hi, out, factors, ahead);
}

// All rows of the task, a tile at a time, against the blocks of a span.
GQA_NOINLINE void attendSpan(const AttendContext& c, const SpanBlock* span, int64_t blocks) {
  const int64_t rows = c.task.rows, tiles = (rows + kTileRows - 1) / kTileRows;
  const int64_t tileRows = c.tiles() ? kTileRows : (rows + tiles - 1) / tiles;
  for (int64_t i = 0, row = 0; i < tiles; ++i, row += tileRows) {
    WaitingWeights waiting;
    waiting.count = 0;
    for (int64_t j = 0; j < blocks; ++j) {
      if (!c.problem.arena.base) prefetchTensors(c, span[j].first + blocks * c.blockTokens, i, tiles);
      attendTile(c, span[j], row, least(tileRows, rows - row), waiting);
    }
    if (c.tiles()) tileValues(c, waiting, least(tileRows, rows - row), c.task.states.out + row * c.task.states.stride);
  }
}

void attendTask(const AttendTask& task) {
  AttendContext c = makeContext(task);
  Tiles registers;
  const bool pairs = c.keys == Form::pairs && c.values == Form::pairs;
  if (c.split() || (pairs && tilesServe(*task.problem, task.rows))) c.registers = &registers;
  const AttendProblem& p = c.problem;
  const auto [low, high] = c.positions(0, task.rows);
  SpanBlock span[kSpanBlocks];
  int64_t held = 0;
  if (c.integers()) prefetchFirst(c);
  packQuery(c);
  for (float* lanes = c.minimums; lanes < c.spreads; lanes += kLanes) store(lanes, zero());
  if (p.statistics.data) beginObserving(c);
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
    const KeyBlock block = keyBlock(c, first, keys, held);
    const int64_t lo = keys.first - first, hi = keys.last - first;
    span[held] = {block, c.split() ? splitBlock(c, block, lo, hi, held) : block, first};
    ++held;
    if (held < kSpanBlocks && c.tiles()) continue;
    attendSpan(c, span, held);
    held = 0;
  }
  if (held > 0) attendSpan(c, span, held);
  if (c.tiles()) registers.release();
  if (c.values == Form::integers) addMinimums(c);
  if (p.statistics.data) endObserving(c);
  for (int64_t r = 0; r < task.rows; ++r) task.states.sum[r] = reduceAdd(load(c.sums + r * kLanes));
}

}  // namespace
}  // namespace gqa
