// The table of operations, the twin of lib/backend/contract.ts: plain data in, nothing allocated, nothing thrown.
//
// Two layers share this file. The *problems* (AttendProblem, StoreProblem, ...) are what the binding hands to the
// runtime; the *tasks* in OpTable are what one thread does on one instruction set. All offsets are in 64 bits.
#pragma once
#include <cstddef>
#include <cstdint>

// Never emitted out of line: files built for a wider instruction set must not leave shared copies behind.
#if defined(_MSC_VER)
#define GQA_INLINE __forceinline
#define GQA_NOINLINE __declspec(noinline)
#else
#define GQA_INLINE inline __attribute__((always_inline))
#define GQA_NOINLINE __attribute__((noinline))
#endif

namespace gqa {

enum class DType : int32_t { f32 = 0, f16 = 1, bf16 = 2, i8 = 3, u8 = 4, i32 = 5 };

// Lanes of a vector: tokens of K, dims of V, output features of a weight. Packed layouts are made of panels of up to 64
// lanes (the last of a layout may be 16, 32 or 48 wide), each [contraction step / k][lanes][k]: a pass over a panel
// walks memory in order, and one row of it feeds as many accumulators as the widest registers hold.
constexpr int64_t kLanes = 16;
constexpr int64_t kPanelLanes = 64;
// Token slots of a block at most: one panel of keys; its scores for one row stay in L1.
constexpr int64_t kMaxBlockTokens = kPanelLanes;

GQA_INLINE constexpr int64_t roundUp(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Contraction steps stored side by side in a lane: bf16 keeps pairs (one dword), the others single elements.
GQA_INLINE constexpr int64_t panelStep(DType t) { return t == DType::bf16 ? 2 : 1; }
GQA_INLINE constexpr int64_t elementBytes(DType t) { return t == DType::f32 ? 4 : 2; }

// Panels of `lanes` lanes (padded to 16) over `steps` contraction steps (padded to k).
struct PanelLayout {
  DType dtype;
  int64_t lanes, steps;

  GQA_INLINE int64_t vectors() const { return roundUp(lanes, kLanes) / kLanes; }
  GQA_INLINE int64_t paddedSteps() const { return roundUp(steps, panelStep(dtype)); }
  GQA_INLINE int64_t rows() const { return paddedSteps() / panelStep(dtype); }
  // 16 lanes of a row, with their k steps.
  GQA_INLINE int64_t vectorBytes() const { return kLanes * panelStep(dtype) * elementBytes(dtype); }
  GQA_INLINE int64_t panelBytes() const { return rows() * vectorBytes() * (kPanelLanes / kLanes); }
  GQA_INLINE int64_t bytes() const { return rows() * vectorBytes() * vectors(); }
  // Vectors of a row in the panel that holds vector v, and where that vector's first row lies.
  GQA_INLINE int64_t rowVectors(int64_t v) const {
    const int64_t first = v / (kPanelLanes / kLanes) * (kPanelLanes / kLanes);
    return vectors() - first < kPanelLanes / kLanes ? vectors() - first : kPanelLanes / kLanes;
  }
  GQA_INLINE int64_t rowBytes(int64_t v) const { return rowVectors(v) * vectorBytes(); }
  GQA_INLINE int64_t vectorOffset(int64_t v) const {
    return v / (kPanelLanes / kLanes) * panelBytes() + v % (kPanelLanes / kLanes) * vectorBytes();
  }
};

// One block of one KV head: K, a panel whose lanes are its tokens, then V, panels whose lanes are the value dims.
struct BlockLayout {
  DType dtype;
  int64_t headDim, valueDim, blockTokens;

  GQA_INLINE PanelLayout keys() const { return {dtype, blockTokens, headDim}; }
  GQA_INLINE PanelLayout values() const { return {dtype, valueDim, blockTokens}; }
  GQA_INLINE int64_t valueOffset() const { return roundUp(keys().bytes(), 64); }
  GQA_INLINE int64_t bytes() const { return valueOffset() + roundUp(values().bytes(), 64); }
};

// One layer's storage, [kvHeads][blocks] blocks: a head's blocks lie together in memory.
struct ArenaView {
  char* base;
  BlockLayout layout;
  int64_t kvHeads, blocks;

  GQA_INLINE char* block(int64_t head, int64_t id) const { return base + (head * blocks + id) * layout.bytes(); }
};

// See BlockTable in contract.ts.
struct BlockTable {
  const int32_t* ids;
  int64_t sinkBlocks, ringBlocks;

  GQA_INLINE int64_t slot(int64_t ordinal) const {
    return ids[ordinal < sinkBlocks ? ordinal : sinkBlocks + (ordinal - sinkBlocks) % ringBlocks];
  }
};

// A [B|1, Hq|1, Tq, Tk] tensor; data is null where absent.
template <class T>
struct Broadcast {
  const T* data;
  int64_t batchStride, headStride;
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
  DType kvType;
  ArenaView arena;
  BlockTable table;
  bool causal;
  int64_t window;  // INT64_MAX for none
  int64_t sinkTokens;
  float scale, softcap;  // softcap 0 for none
  Broadcast<uint8_t> mask;
  Broadcast<float> bias;
  const float* alibiSlopes;
  const float* sinkLogits;
  double dropout;  // probability, 0 for none
  uint32_t dropoutSeed;
};

struct StoreProblem {
  ArenaView arena;
  BlockTable table;
  const void* k;
  const void* v;
  DType type;
  int64_t from, count, position;
};

// Packed weights: panels whose lanes are the output features (rows) and whose steps are the input features (columns).
struct WeightsView {
  char* base;
  DType dtype;
  int64_t rows, columns;

  GQA_INLINE PanelLayout layout() const { return {dtype, rows, columns}; }
  GQA_INLINE int64_t bytes() const { return layout().bytes(); }
};

struct LinearProblem {
  const float* x;  // [tokens, columns]
  WeightsView weights;
  const float* bias;  // [rows] or null
  float* out;         // [tokens, rows]
  int64_t tokens;
  bool prefetch;  // software prefetch of the next panel pays on this machine; set by the runtime
};

struct RopeProblem {
  float* x;
  const float* cos;
  const float* sin;
  int64_t tokens, heads, headDim, rotaryDim;
  bool interleaved;
};

// One mergeable softmax state per row: maximum (log2 units), sum, unnormalised output. The same struct serves a
// run of blocks, a split over threads and mergeAttention.
struct RowStates {
  float* max;  // [rows]
  float* sum;  // [rows]
  float* out;  // [rows][stride]
  int64_t stride;
};

// Rows [firstRow, firstRow + rows) of one (batch, KV head) against keys [firstKey, lastKey). A row is
// (query i, head of the group g), query major: row = i * G + g.
struct AttendTask {
  const AttendProblem* problem;
  int64_t batch, kvHead;
  int64_t firstRow, rows;
  int64_t firstKey, lastKey;
  RowStates states;  // for this task's rows
  float* scratch;    // attendScratchFloats floats, 64-byte aligned
  bool prefetch;     // software prefetch of the next block pays on this machine
};

struct OpTable {
  const char* isa;
  // Registers hold a whole row's accumulators, so that a pass over a panel reads memory in order.
  bool wholeRows;
  // Floats of scratch a task of `rows` rows needs.
  int64_t (*attendScratchFloats)(const AttendProblem&, int64_t rows);
  // Folds the task's keys into its states; `states` must hold an initial or earlier state (see initStates).
  void (*attend)(const AttendTask&);
  void (*initStates)(const RowStates&, int64_t rows, int64_t width);
  // dst = merge(dst, src), row by row; exact for disjoint key sets.
  void (*mergeStates)(const RowStates& dst, const RowStates& src, int64_t rows, int64_t width);
  // Normalises, joins sink logits and writes rows [firstRow, firstRow + rows) of (batch, kvHead) to out and lse.
  void (*finish)(const AttendProblem&, int64_t batch, int64_t kvHead, int64_t firstRow, int64_t rows, const RowStates&);

  void (*store)(const StoreProblem&, int64_t kvHead);
  // Output features of vectors [first, last), 16 each.
  void (*packWeights)(const WeightsView&, const void* weight, DType type, int64_t first, int64_t last);
  // Output features of vectors [first, last), `first` at the start of a panel, for tokens [firstToken, lastToken).
  void (*linear)(const LinearProblem&, int64_t first, int64_t last, int64_t firstToken, int64_t lastToken);
  void (*rmsNorm)(const float* x, const float* weight, float* out, int64_t tokens, int64_t dim, float eps);
  void (*rope)(const RopeProblem&, int64_t firstToken, int64_t lastToken);
  void (*swiglu)(const float* gate, const float* up, float* out, int64_t count);
  void (*add)(float* x, const float* y, int64_t count);
  void (*convert)(const void* from, DType fromType, void* to, DType toType, int64_t count);

  void (*probeRead)(const void* data, int64_t bytes);
  double (*probeFma)(int64_t iterations);
};

}  // namespace gqa
