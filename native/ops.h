// The table of operations, the twin of lib/backend/contract.ts: plain data in, nothing allocated, nothing thrown.
//
// Two layers share this file. The *problems* (AttendProblem, StoreProblem, ...) are what the binding hands to the
// runtime; the *tasks* in OpTable are what one thread does on one instruction set. All offsets are in 64 bits.
#pragma once
#include "ops_linear.h"

namespace gqa {

// A [B|1, Hq|1, Tq, Tk] tensor; data is null where absent.
template <class T>
struct Broadcast {
  const T* data;
  int64_t batchStride, headStride;
};

// What a row's weights look like: see StatisticsArgs in contract.ts.
enum class Statistic { entropy, sinkMass, recentMass, maxLogit, visible };
constexpr int kStatistics = 5;

struct StatisticsView {
  float* data;    // [kStatistics][rows of the call], null where none are asked for
  int64_t plane;  // floats from one statistic to the next
  int64_t sinkTokens, recentTokens;
};

struct AttendProblem {
  const void* q;
  void* out;
  float* lse;  // may be null
  DType qType, outType;
  int64_t batch, queryTokens, keyTokens, heads, kvHeads, headDim, valueDim;
  // Exactly one source: k and v are null where an arena is given.
  const void* k;
  const void* v;
  DType kvType;  // of k and v
  ArenaView arena;
  BlockTable table;
  TailView tail;      // over an arena only; the runtime cuts keys into segments of one source and one set of queries
  const void* sinkQ;  // over an arena only: queries for keys below sinkTokens; null where those are q
  // Of each row's token; null where row i is at i + keyTokens - queryTokens.
  const int64_t* positions;
  // The newest queryTokens keys are the rows' own tokens, at the same positions, and the mask, [Tq, Tq], is of them
  // alone.
  bool tree;
  bool causal;
  int64_t window;  // INT64_MAX for none
  int64_t sinkTokens;
  float scale, softcap;  // softcap 0 for none
  Broadcast<uint8_t> mask;
  Broadcast<float> bias;
  const float* alibiSlopes;
  const float* sinkLogits;
  bool fast;       // q and weights may be rounded to bf16
  double dropout;  // probability, 0 for none
  uint32_t dropoutSeed;
  StatisticsView statistics;

  GQA_INLINE DType keyType() const { return arena.base ? arena.layout.keyType : kvType; }
  GQA_INLINE DType valueType() const { return arena.base ? arena.layout.valueType : kvType; }
};

struct RowSpan {
  int64_t low, high;
};

// The lowest and the highest position of queries first .. last.
GQA_INLINE RowSpan positionsOf(const AttendProblem& p, int64_t first, int64_t last) {
  const int64_t begin = p.keyTokens - p.queryTokens;
  if (!p.positions) return {first + begin, last + begin};
  RowSpan span = {p.positions[first], p.positions[first]};
  for (int64_t i = first + 1; i <= last; ++i) {
    if (p.positions[i] < span.low) span.low = p.positions[i];
    if (p.positions[i] > span.high) span.high = p.positions[i];
  }
  return span;
}

struct StoreProblem {
  ArenaView arena;
  BlockTable table;
  const void* k;
  const void* v;
  DType type;
  int64_t from, count, position;
};

// Floats in which the rows that are stored together are turned.
GQA_INLINE int64_t storeScratchFloats(const BlockLayout& b) {
  if (!b.rotateKeys && !b.rotateValues) return 0;
  return kLanes * roundUp(b.headDim > b.valueDim ? b.headDim : b.valueDim, kLanes);
}

// A block of one arena into one of another of equal shape.
struct CopyProblem {
  ArenaView from, to;
  int64_t fromId, toId;
};

// Floats in which a side of a block is dequantised on its way to another dtype.
GQA_INLINE int64_t copyScratchFloats(const CopyProblem& p) {
  const BlockLayout &a = p.from.layout, &b = p.to.layout;
  const bool keys = isQuantised(a.keyType) && a.keyType != b.keyType;
  const bool values = isQuantised(a.valueType) && a.valueType != b.valueType;
  const int64_t wideKeys = PanelLayout{DType::f32, a.blockTokens, a.headDim}.bytes() / 4;
  const int64_t wideValues = PanelLayout{DType::f32, a.valueDim, a.blockTokens}.bytes() / 4;
  const int64_t k = keys ? wideKeys : 0, v = values ? wideValues : 0;
  return k > v ? k : v;
}

// Tokens at positions from[i] also at positions to + i, in ascending order; an arena of floats.
struct MoveProblem {
  ArenaView arena;
  BlockTable table;
  const int32_t* from;
  int64_t to, count;
};

// A block as bytes; see BlockBytesArgs in contract-cache.ts.
struct BlockBytes {
  ArenaView arena;
  int64_t id;
  uint8_t* bytes;
  int64_t tokens;  // that are read
};

// Bytes of a token's value as GGUF's blocks.
GQA_INLINE constexpr int64_t valueRowBytes(DType t, int64_t dims) {
  return roundUp(dims, kGroup) / kGroup * blockBytes(t);
}
// A head's keys, and values, in the form of readBlock.
GQA_INLINE int64_t plainKeyBytes(const BlockLayout& b) {
  if (!isQuantised(b.keyType)) return b.blockTokens * b.headDim * elementBytes(b.keyType);
  return 4 * b.headDim + b.blockTokens * (b.keyType == DType::q8_0 ? b.headDim : (b.headDim + 1) / 2);
}
GQA_INLINE int64_t plainValueBytes(const BlockLayout& b) {
  if (!isQuantised(b.valueType)) return b.blockTokens * b.valueDim * elementBytes(b.valueType);
  return b.blockTokens * valueRowBytes(b.valueType, b.valueDim);
}

struct RopeProblem {
  float* x;
  const float* cos;
  const float* sin;
  int64_t tokens, heads, headDim, rotaryDim;
  bool interleaved;
};

// What statistics need beside a row's softmax state; weights are relative to the state's maximum m, as its sum is.
struct RowStatistics {
  float spread;        // sum w (s - m), log2 units
  float sink, recent;  // sums of w: of keys below sinkTokens, of those of the recent window
  float highest;       // largest score, log2 units; m may be below it
  float visible;       // keys seen
};
static_assert(sizeof(RowStatistics) == kStatistics * sizeof(float), "states are laid over arrays of floats");

// One mergeable softmax state per row: maximum (log2 units), sum, unnormalised output. The same struct serves a
// run of blocks, a split over threads and mergeAttention.
struct RowStates {
  float* max;  // [rows]
  float* sum;  // [rows]
  float* out;  // [rows][stride]
  int64_t stride;
  RowStatistics* statistics = nullptr;  // [rows], null where none are asked for
};

// Rows [firstRow, firstRow + rows) of one (batch, KV head) against keys [firstKey, lastKey). A row is
// (query i, head of the group g), query major: row = i * G + g.
struct AttendTask {
  const AttendProblem* problem;
  int64_t batch, kvHead;
  int64_t firstRow, rows;
  int64_t firstKey, lastKey;
  RowStates states;   // for this task's rows
  float* scratch;     // attendScratchFloats floats, 64-byte aligned
  Prefetch prefetch;  // of the next block
};

// What dot-product instructions multiply: pairs of bf16, or four bytes, unsigned by signed.
enum class DotKind : int32_t { bf16 = 0, int8 = 1 };

struct TrainingTable;  // ops_training.h

struct OpTable {
  const char* isa;
  // Floats of scratch a task of `rows` rows needs.
  int64_t (*attendScratchFloats)(const AttendProblem&, int64_t rows);
  // Folds the task's keys into its states; `states` must hold an initial or earlier state (see initStates).
  void (*attend)(const AttendTask&);
  void (*initStates)(const RowStates&, int64_t rows, int64_t width);
  // dst = merge(dst, src), row by row; exact for disjoint key sets.
  void (*mergeStates)(const RowStates& dst, const RowStates& src, int64_t rows, int64_t width);
  // Normalises, joins sink logits and writes rows [firstRow, firstRow + rows) of (batch, kvHead) to out and lse.
  void (*finish)(const AttendProblem&, int64_t batch, int64_t kvHead, int64_t firstRow, int64_t rows, const RowStates&);

  // scratch: storeScratchFloats, copyScratchFloats.
  void (*store)(const StoreProblem&, int64_t kvHead, float* scratch);
  void (*copyBlock)(const CopyProblem&, int64_t kvHead, float* scratch);
  void (*moveTokens)(const MoveProblem&, int64_t kvHead);
  void (*readBlock)(const BlockBytes&, int64_t kvHead);
  void (*writeBlock)(const BlockBytes&, int64_t kvHead);
  // Output features of vectors [first, last), 16 each; a quantised `weight` is GGUF blocks of the packed dtype.
  void (*packWeights)(const WeightsView&, const void* weight, DType type, int64_t first, int64_t last);
  // out[columns] = the weights of one output feature.
  void (*unpackRow)(const WeightsView&, int64_t row, float* out);
  // The form of the problem's x in which weights of this dtype are multiplied.
  Activations (*activationForm)(const LinearProblem&, DType weights);
  // Writes the forms of tokens [first, last), `first` at the start of a tile; scratch: a row of floats.
  void (*prepareActivations)(const LinearProblem&, int64_t first, int64_t last, float* scratch);
  // Output features of vectors [first, last) of a part, tokens [firstToken, lastToken), firstToken at the start of a
  // tile.
  void (*linear)(const LinearProblem&, int64_t part, int64_t first, int64_t last, int64_t firstToken,
                 int64_t lastToken);
  void (*normalise)(const float* x, const Norm& norm, float* out, int64_t tokens, int64_t dim);
  void (*rope)(const RopeProblem&, int64_t firstToken, int64_t lastToken);
  // out = f(x), or f(x) by second where that is given.
  void (*activate)(ActivationFunction f, const float* x, const float* second, float* out, int64_t count);
  void (*add)(float* x, const float* y, int64_t count);
  void (*convert)(const void* from, DType fromType, void* to, DType toType, int64_t count);
  bool (*allBelow)(const void* data, DType type, int64_t count, float limit);

  void (*probeRead)(const void* data, int64_t bytes);
  double (*probeFma)(int64_t iterations);
  // Operations done, two a multiply-add; 0 where the target has no such instruction.
  double (*probeDot)(DotKind kind, int64_t iterations);

  const TrainingTable* training;
};

}  // namespace gqa
