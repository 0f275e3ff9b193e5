// What the binding may call: whole operations, split over threads.
#pragma once
#include <atomic>
#include "../ops.h"

namespace gqa {

// Null where a call cannot be cancelled; non-zero stops it at its next work item.
using CancelFlag = const std::atomic<int32_t>*;

enum class Status : int32_t { ok = 0, cancelled = 1, outOfMemory = 2 };

// ---- dispatch.cc
// The table chosen at start (CPUID, XCR0 / HWCAP, GQA_ISA). Null if GQA_ISA names one that this CPU or build lacks.
const OpTable* opTable();
// Why, in one line, for people; names the features found.
const char* dispatchReason();

// ---- prefetch.cc
// What pays on this machine for a call that reads so many bytes of keys and values, or weights.
Prefetch prefetchFor(double bytes);

// ---- attend_step.cc
// See StepPlan in contract-cache.ts.
struct StepEntry {
  int64_t firstToken, tokens, keyTokens;
  BlockTable table, tailTable;
  int64_t tailSinkOrdinals, tailFirstOrdinal;
  const int32_t* tree;  // depths [tokens], then [tokens][tokens]; null for a chain
  int64_t ownKey;       // where its last share ends, 0 without one
};
struct StepShare {
  int64_t firstKey, lastKey;
  const int32_t* members;
  int64_t count;  // at least 1
};
struct StepProblem {
  // What the entries have in common. q, sinkQ, out and lse are those of all queryTokens rows; the arenas come without
  // tables.
  AttendProblem common;
  const StepEntry* entries;
  int64_t count;
  const StepShare* shares;
  int64_t shareCount;
};
Status attendStep(const StepProblem& step);

// ---- attend.cc, merge.cc, linear.cc, elementwise.cc
Status attend(const AttendProblem& problem, CancelFlag cancel);
// out and lse are those of the merged state; parts have `count` entries. False when memory is short.
bool merge(const void* const* outs, const float* const* lses, int64_t count, DType type, void* out, float* lse,
           int64_t rows, int64_t valueDim);
void packWeights(const WeightsView& weights, const void* weight, DType type);
Status linear(const LinearProblem& problem);
// out[count][columns]: rows of the weights as f32; ids are within them.
void gatherRows(const WeightsView& weights, const int32_t* ids, int64_t count, float* out);
void normalise(const float* x, const Norm& norm, float* out, int64_t tokens, int64_t dim);
void rope(const RopeProblem& problem);
// out = f(x), or f(x) by second where that is not null.
void activate(ActivationFunction f, const float* x, const float* second, float* out, int64_t count);
void add(float* x, const float* y, int64_t count);
void convert(const void* from, DType fromType, void* to, DType toType, int64_t count);
bool allBelow(const void* data, DType type, int64_t count, float limit);

// ---- blocks.cc: what moves in and between arenas
Status store(const StoreProblem& problem);
Status copyBlock(const CopyProblem& problem);
void moveTokens(const MoveProblem& problem);
void readBlock(const BlockBytes& problem);
void writeBlock(const BlockBytes& problem);

// ---- probe.cc: what the machine can do, timed by the caller
void probeRead(const void* data, int64_t bytes);
double probeFma(int64_t iterations);                // FLOP done
double probeDot(DotKind kind, int64_t iterations);  // operations done, 0 where the target has no such instruction
// Multiplies AMX tiles of bf16 that it loads from the L1 cache; FLOP done, 0 where there is no AMX to be had.
double probeTiles(int64_t iterations);
// Nanoseconds from the start of a parallel call until a second thread works on it; -1 if none came in time.
double probeWake();

// ---- tiles.cc
// Whether this process may use AMX tiles: asks the system for them once.
bool tilesGranted();
// Whether kernels have tiles: those of AMX, or in builds for tests (GQA_TILE_MODEL) a model of them.
bool tilesUsable();
double multiplyTiles(int64_t iterations);  // FLOP done; only where tilesGranted()

// ---- memory.cc
// Zeroed, 64-byte aligned (large pages where the system gives them); null when memory is short.
void* allocatePages(int64_t bytes);
void releasePages(void* base, int64_t bytes);
// This thread's scratch, grown when needed and kept; 64-byte aligned, contents undefined; null when memory is short.
// A call's arguments, its plan and its own buffers and those of the work items it runs on the same thread do not share
// a slot.
enum class Scratch : int { task, call, plan, arguments, count };
float* threadScratch(Scratch slot, int64_t floats);

// ---- mapping.cc
// A whole file, read-only; base is null where it cannot be had, and error says why.
struct FileMapping {
  char* base = nullptr;
  int64_t bytes = 0;
  bool shared = false;  // the file's own pages; else a copy in this process's memory
  const char* error = "";
};
FileMapping mapFile(const char* path);  // UTF-8
void unmapFile(const FileMapping& mapping);

// ---- checksum.cc
// Of bytes that may have been damaged by accident; the same for any number of threads.
uint64_t checksum(const void* data, int64_t bytes);

// ---- thread_pool.cc
// Threads that share a call, the caller included.
int threadCount();
void limitThreads(int threads);
// "4: cgroup quota 4.0, affinity 8, GQA_THREADS unset"
const char* threadReason();
// body(context, item) for every item of [0, items), each exactly once, in ascending start order; the caller works too.
// Returns false if `cancel` became non-zero before the last item started. Safe to call from several threads at once.
bool parallelFor(int64_t items, void (*body)(void* context, int64_t item), void* context, CancelFlag cancel);
// Runs job on a thread of the pool's own, then done(context) there. For async calls.
void runDetached(void (*job)(void* context), void* context);

}  // namespace gqa
