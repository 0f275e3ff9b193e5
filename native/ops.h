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

// Lanes of a panel, the unit of every packed layout: 16 tokens of K, 16 dims of V, 16 output features of a weight.
constexpr int64_t kLanes = 16;
// Token slots of a block at most; a block's scores for one row stay in L1.
constexpr int64_t kMaxBlockTokens = 64;

GQA_INLINE constexpr int64_t roundUp(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Contraction steps stored side by side in a lane: bf16 keeps pairs (one dword), the others single elements.
GQA_INLINE constexpr int64_t panelStep(DType t) { return t == DType::bf16 ? 2 : 1; }
GQA_INLINE constexpr int64_t elementBytes(DType t) { return t == DType::f32 ? 4 : 2; }

// One block of one KV head: K panels [blockTokens/16][headDim/k][16 tokens][k], then
// V panels [valueDim/16][blockTokens/k][16 dims][k], k = panelStep(dtype). headDim is padded to k, valueDim to 16.
struct BlockLayout {
  DType dtype;
  int64_t headDim, valueDim, blockTokens;

  GQA_INLINE int64_t keyDim() const { return roundUp(headDim, panelStep(dtype)); }
  GQA_INLINE int64_t keyPanelBytes() const { return keyDim() * kLanes * elementBytes(dtype); }
  GQA_INLINE int64_t valuePanelBytes() const { return blockTokens * kLanes * elementBytes(dtype); }
  GQA_INLINE int64_t valuePanels() const { return roundUp(valueDim, kLanes) / kLanes; }
  GQA_INLINE int64_t valueOffset() const { return roundUp(blockTokens / kLanes * keyPanelBytes(), 64); }
  GQA_INLINE int64_t bytes() const { return roundUp(valueOffset() + valuePanels() * valuePanelBytes(), 64); }
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
  float dropout;  // probability, 0 for none
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

// Packed weights: panels [rows/16][columns/k][16 rows][k], rows padded to 16 and columns to k with zeros.
struct WeightsView {
  char* base;
  DType dtype;
  int64_t rows, columns;

  GQA_INLINE int64_t panelBytes() const { return roundUp(columns, panelStep(dtype)) * kLanes * elementBytes(dtype); }
  GQA_INLINE int64_t panels() const { return roundUp(rows, kLanes) / kLanes; }
  GQA_INLINE int64_t bytes() const { return panels() * panelBytes(); }
};

struct LinearProblem {
  const float* x;  // [tokens, columns]
  WeightsView weights;
  const float* bias;  // [rows] or null
  float* out;         // [tokens, rows]
  int64_t tokens;
  int64_t prefetch;  // bytes ahead in each panel, set by the runtime; 0 for none
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
  RowStates states;    // for this task's rows
  float* scratch;      // attendScratchFloats floats, 64-byte aligned
  bool prefetch;       // software prefetch of the next block pays on this machine
};

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

  void (*store)(const StoreProblem&, int64_t kvHead);
  void (*packWeights)(const WeightsView&, const void* weight, DType type, int64_t firstPanel, int64_t lastPanel);
  // Output features of panels [firstPanel, lastPanel) for tokens [firstToken, lastToken).
  void (*linear)(const LinearProblem&, int64_t firstPanel, int64_t lastPanel, int64_t firstToken, int64_t lastToken);
  void (*rmsNorm)(const float* x, const float* weight, float* out, int64_t tokens, int64_t dim, float eps);
  void (*rope)(const RopeProblem&, int64_t firstToken, int64_t lastToken);
  void (*swiglu)(const float* gate, const float* up, float* out, int64_t count);
  void (*add)(float* x, const float* y, int64_t count);
  void (*convert)(const void* from, DType fromType, void* to, DType toType, int64_t count);

  void (*probeRead)(const void* data, int64_t bytes);
  double (*probeFma)(int64_t iterations);
};

}  // namespace gqa
