// Where a task's keys and values come from: a block of the arena as it lies there, or rows of tensors packed into such
// a block on the way in. Whatever the source, the products (products.h) see a KeyBlock.
#pragma once

namespace gqa {
namespace {

// Rows of a tile at most: its scores stay in L1 beside a panel of the block, which every sub-tile reads.
constexpr int64_t kTileRows = kTiles ? kTileBlockRows : 24;

// Blocks whose values meet the weights in one product: on tiles some, so that O is loaded and stored less often.
constexpr int64_t kSpanBlocks = kTiles ? 4 : 1;
constexpr int64_t kPairStride = kSpanBlocks * kMaxBlockTokens;

// Rows of a task up to which the integer products pay; more rows share a block widened to f32 or bf16.
constexpr int64_t kIntegerRows = 2 * kTileRows;

// How a side of a block, K or V, meets the rows: as f32 or 16-bit floats, q and weights being f32; in pairs of bf16,
// as q and weights are; as the integers of quantised storage.
enum class Form { floats, pairs, integers };

// Whether tiles serve a task: fewer rows go through the vectors' registers in one pass.
GQA_INLINE bool tilesServe(const AttendProblem& p, int64_t rows) {
  return kTiles && rows > kMaxTileRows && tileDepth((p.headDim + 1) / 2) >= kLeastDepth;
}

struct Forms {
  Form keys, values;
  bool split = false;  // on tiles, in two terms of bf16 each

  GQA_INLINE bool pairs() const { return keys == Form::pairs && values == Form::pairs; }
  GQA_INLINE bool integers() const { return keys == Form::integers || values == Form::integers; }
};

// q and weights are rounded to bf16 where q is so already or the caller prefers speed, the CPU multiplies such pairs
// and the side is no finer: bf16, or quantised.
GQA_INLINE Form formOf(const AttendProblem& p, DType stored, int64_t rows) {
  if (isQuantised(stored) && rows <= kIntegerRows) return Form::integers;
  const bool rounds = (p.qType == DType::bf16 || p.fast) && (kDotBf16 || tilesServe(p, rows));
  return rounds && (stored == DType::bf16 || isQuantised(stored)) ? Form::pairs : Form::floats;
}

// Sides that are not both bf16 are split where many rows share the block.
GQA_INLINE Forms formsOf(const AttendProblem& p, int64_t rows) {
  const Forms forms = {formOf(p, p.keyType(), rows), formOf(p, p.valueType(), rows)};
  const bool split = p.fast && !forms.pairs() && !forms.integers() && rows >= kTileBlockRows && tilesServe(p, rows);
  return split ? Forms{Form::floats, Form::floats, true} : forms;
}

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
  // Those of the block after it where they should be prefetched, else null.
  const char* nextK;
  const char* nextV;
};

// A task with its scratch laid out; see makeContext.
struct AttendContext {
  const AttendTask& task;
  const AttendProblem& problem;
  int64_t group = 0, blockTokens = 0;
  Form keys = Form::floats, values = Form::floats;
  int64_t queryStride = 0;   // 4-byte words of a packed query row
  bool plainScores = false;  // no feature touches scores before the softmax: log2 e is part of the scale
  // The scale, wherever it goes: into the query, over the scores before any feature, or into the softmax; else 1.
  float queryScale = 1, scoreScale = 1, softmaxScale = 1;
  float* query = nullptr;     // [rows][queryStride], f32 or bf16, or floats of IntegerQueryLayout
  float* sums = nullptr;      // [rows][16], lane sums of weights
  float* minimums = nullptr;  // [rows][groups of 32 value dims][16], lane sums of weights times minimums
  float* spreads = nullptr;   // where statistics are asked for, [rows][16]: lanes of their sums,
  float* highest = nullptr;   // and of the largest scores
  float* scores = nullptr;    // [kTileRows][kScoreStride]
  float* weights = nullptr;   // [kTileRows][kScoreStride]
  // [kTileRows][kPairStride], as bf16, those of a span's blocks side by side; where they are split, then their low
  // terms
  uint16_t* weightPairs = nullptr;
  float* factors = nullptr;   // [kTileRows], the rescaling of each row
  float* rotated = nullptr;   // a query row on its way, where keys are rotated
  float* keyTerms = nullptr;  // of a block of quantised keys, and the numbers of a tile's queries (integer_query.h)
  float* queryWords = nullptr;
  char* packed = nullptr;      // the blocks of a span, where keys are tensors or quantised
  char* terms = nullptr;       // the blocks of a span split in two terms of bf16, where they are
  Tiles* registers = nullptr;  // null where vectors multiply

  GQA_INLINE bool integers() const { return keys == Form::integers || values == Form::integers; }
  GQA_INLINE bool tiles() const { return kTiles && registers; }
  GQA_INLINE bool split() const { return kTiles && terms; }

  GQA_INLINE int64_t queryOf(int64_t row) const {
    const int64_t at = task.firstRow + row;
    return at < group ? 0 : at / group;
  }
  // The lowest and the highest position of rows [row, row + rows).
  GQA_INLINE RowSpan positions(int64_t row, int64_t rows) const {
    return positionsOf(problem, queryOf(row), queryOf(row + rows - 1));
  }
};

// What a side is packed or widened to; else as stored.
GQA_INLINE DType multipliedType(const AttendProblem& p, DType stored, Form form) {
  if (p.arena.base && (form == Form::integers || !isQuantised(stored))) return stored;
  return form == Form::pairs ? DType::bf16 : DType::f32;
}

GQA_INLINE BlockLayout multipliedLayout(const AttendProblem& p, Form keys, Form values) {
  return {multipliedType(p, p.keyType(), keys), multipliedType(p, p.valueType(), values), p.headDim, p.valueDim,
          p.arena.base ? p.arena.layout.blockTokens : kMaxBlockTokens};
}

// The block that starts at position `first`, straight from the arena. Where several sub-tiles of rows read it, all but
// the first find it in L1; to keep memory busy meanwhile they fetch the next block, on any machine, if arithmetic and
// not memory is what they wait for.
GQA_INLINE KeyBlock arenaBlock(const AttendContext& c, int64_t first) {
  const ArenaView& arena = c.problem.arena;
  const BlockLayout& layout = arena.layout;
  const int64_t ordinal = first / c.blockTokens;
  const char* block = arena.block(c.task.kvHead, c.problem.table.slot(ordinal));
  const bool computes = c.task.rows * 2 > kMaxTileRows * elementBytes(layout.keyType);
  const bool pays = c.task.prefetch != Prefetch::off || computes || c.integers();
  const bool more = pays && first + c.blockTokens < c.task.lastKey;
  const char* next = more ? arena.block(c.task.kvHead, c.problem.table.slot(ordinal + 1)) : nullptr;
  return {layout, block, block + layout.valueOffset(), next, next ? next + layout.valueOffset() : nullptr};
}

// The same, its quantised sides widened to f32 or bf16.
GQA_INLINE KeyBlock widenedBlock(const AttendContext& c, int64_t first, KeyRange keys, char* to) {
  KeyBlock block = arenaBlock(c, first);
  const BlockLayout stored = block.layout, wide = multipliedLayout(c.problem, c.keys, c.values);
  // Tiles read values in runs: what no key fills must be finite.
  const int64_t from = c.tiles() ? 0 : keys.first - first, last = c.tiles() ? c.blockTokens : keys.last - first;
  block.layout = wide;
  if (wide.keyType != stored.keyType) {
    if (wide.keyType == DType::bf16)
      widenKeys<true>(stored.quantisedKeys(), block.k, from, last, wide.keys(), to);
    else
      widenKeys<false>(stored.quantisedKeys(), block.k, from, last, wide.keys(), to);
    block.k = to;
    block.nextK = nullptr;
  }
  if (wide.valueType != stored.valueType) {
    to += wide.valueOffset();
    if (wide.valueType == DType::bf16)
      widenValues<true>(stored.quantisedValues(), block.v, from, last, wide.values(), to);
    else
      widenValues<false>(stored.quantisedValues(), block.v, from, last, wide.values(), to);
    block.v = to;
    block.nextV = nullptr;
  }
  return block;
}

GQA_INLINE void prefetchRow(const char* row, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) prefetchLine(row + i);
}

// The first block of a task, which no block before it fetches: what of it memory can bring while the queries are
// packed.
GQA_INLINE void prefetchFirst(const AttendContext& c) {
  constexpr int64_t kMost = 10 << 10;
  const ArenaView& arena = c.problem.arena;
  const int64_t slot = c.problem.table.slot(c.task.firstKey / c.blockTokens);
  prefetchRow(arena.block(c.task.kvHead, slot), least(arena.layout.bytes(), kMost));
}

// Part `part` of `parts` of the rows that the block at `first` will be packed from. They lie a whole token apart, which
// no hardware prefetch foresees; asked for between the tiles of the block before, memory works while those compute.
GQA_INLINE void prefetchTensors(const AttendContext& c, int64_t first, int64_t part, int64_t parts) {
  const AttendProblem& p = c.problem;
  const int64_t tokens = least(c.blockTokens, c.task.lastKey - first), size = elementBytes(p.kvType);
  if (tokens <= 0) return;
  for (int64_t t = tokens * part / parts; t < tokens * (part + 1) / parts; ++t) {
    const int64_t row = (c.task.batch * p.keyTokens + first + t) * p.kvHeads + c.task.kvHead;
    prefetchRow(elementAt(p.k, p.kvType, row * p.headDim), p.headDim * size);
    prefetchRow(elementAt(p.v, p.kvType, row * p.valueDim), p.valueDim * size);
  }
}

// Keys [keys.first, keys.last) of tensors k and v packed as panels of the block that starts at `first`.
GQA_INLINE KeyBlock packedBlock(const AttendContext& c, int64_t first, KeyRange keys, char* to) {
  const AttendProblem& p = c.problem;
  const BlockLayout layout = multipliedLayout(p, c.keys, c.values);
  const int64_t from = keys.first / kLanes * kLanes;  // panels start at a multiple of 16 tokens
  // Tiles read values in runs: what no key fills must be finite.
  if (c.tiles() && keys.last - from < c.blockTokens)
    std::memset(to + layout.valueOffset(), 0, size_t(layout.valueBytes()));
  for (int64_t j = from; j < keys.last; j += kLanes) {
    const int64_t token = c.task.batch * p.keyTokens + j, tokens = lanesLeft(j, keys.last);
    const int64_t keyStride = p.kvHeads * p.headDim, valueStride = p.kvHeads * p.valueDim;
    const char* k = elementAt(p.k, p.kvType, token * keyStride + c.task.kvHead * p.headDim);
    const char* v = elementAt(p.v, p.kvType, token * valueStride + c.task.kvHead * p.valueDim);
    packVector(layout.keys(), to, (j - first) / kLanes, p.kvType, k, keyStride, tokens);
    packSteps(layout.values(), to + layout.valueOffset(), j - first, p.kvType, v, valueStride, tokens);
  }
  return {layout, to, to + layout.valueOffset(), nullptr, nullptr};
}

}  // namespace
}  // namespace gqa
