// Which software prefetch pays: a property of the machine and of the target, measured once, at the first call that
// reads enough to gain or lose by it (docs/numerics.md). Results do not depend on it.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "cpu.h"
#include "pacing.h"
#include "runtime.h"

#if defined(__x86_64__) || defined(_M_X64)
#define GQA_FLUSH 1
#include <immintrin.h>
#endif
#if defined(_MSC_VER)
#define GQA_FLUSH_CODE
#else
#define GQA_FLUSH_CODE __attribute__((target("clflushopt")))
#endif

namespace gqa {
namespace {

// Below this a call's data are likely in a cache, and the call is too short to be worth measuring for.
constexpr int64_t kLeastBytes = 1 << 20;

// What is timed: decode over an arena of one f32 head that lies in memory, not in a cache.
constexpr int64_t kHeads = 4, kHeadDim = 128, kTokens = 2048, kBlocks = kTokens / kMaxBlockTokens;
// Passes with each kind of prefetch, in turns; the best counts.
constexpr int kKinds = 3, kPasses = 5;
// By how much the machine must differ from what its kind is known for: noise is less.
constexpr double kClearly = 0.1;

// Intel's server cores reach half of the read limit without many pages in flight; others follow a stream of lines.
Prefetch expected() { return cpuFeatures().intel ? Prefetch::pages : Prefetch::lines; }

#if GQA_FLUSH
GQA_FLUSH_CODE void flush(const char* base, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) _mm_clflushopt(const_cast<char*>(base) + i);
  _mm_mfence();
}
bool canFlush() { return cpuFeatures().clflushopt; }
#else
void flush(const char*, int64_t) {}
bool canFlush() { return false; }
#endif

// Nanoseconds of one cold pass.
int64_t pass(const AttendProblem& problem, float* memory, Prefetch prefetch) {
  const OpTable* ops = opTable();
  const int64_t scratchFloats = roundUp(ops->attendScratchFloats(problem, kHeads), kLanes);
  float* out = memory + scratchFloats;
  const RowStates states = {out + kHeads * kHeadDim, out + kHeads * kHeadDim + kHeads, out, kHeadDim};
  ops->initStates(states, kHeads, kHeadDim);
  flush(problem.arena.base, kBlocks * problem.arena.layout.bytes());
  const int64_t start = nanoseconds();
  ops->attend({&problem, 0, 0, 0, kHeads, 0, kTokens, states, memory, prefetch});
  return nanoseconds() - start;
}

Prefetch measure() {
  const float query[kHeads * kHeadDim] = {};
  int32_t ids[kBlocks];
  for (int64_t i = 0; i < kBlocks; ++i) ids[i] = static_cast<int32_t>(i);
  AttendProblem p = {};
  p.q = query;
  p.batch = p.queryTokens = p.kvHeads = 1;
  p.heads = kHeads;
  p.keyTokens = kTokens;
  p.headDim = p.valueDim = kHeadDim;
  p.causal = true;
  p.window = std::numeric_limits<int64_t>::max() / 2;
  p.scale = 1;
  p.arena.layout = {DType::f32, DType::f32, kHeadDim, kHeadDim, kMaxBlockTokens};
  p.arena.kvHeads = 1;
  p.arena.blocks = kBlocks;
  p.table = {ids, 0, kBlocks};

  const int64_t arenaBytes = kBlocks * p.arena.layout.bytes();
  const int64_t floats = roundUp(opTable()->attendScratchFloats(p, kHeads), kLanes) + kHeads * (kHeadDim + 2);
  p.arena.base = static_cast<char*>(allocatePages(arenaBytes));
  float* memory = static_cast<float*>(allocatePages(floats * 4));
  Prefetch best = expected();
  if (p.arena.base != nullptr && memory != nullptr) {
    // Written, not only reserved: untouched pages may all be one page of zeros.
    std::fill_n(reinterpret_cast<float*>(p.arena.base), arenaBytes / 4, 0.5f);
    int64_t times[kKinds];
    std::fill_n(times, kKinds, std::numeric_limits<int64_t>::max());
    for (int i = 0; i < kPasses * kKinds; ++i) {
      int64_t& time = times[i % kKinds];
      time = std::min(time, pass(p, memory, Prefetch(i % kKinds)));
    }
    const int64_t* fastest = std::min_element(times, times + kKinds);
    const double slower = static_cast<double>(times[static_cast<int>(best)]) / static_cast<double>(*fastest) - 1;
    if (slower > kClearly) best = Prefetch(fastest - times);
  }
  releasePages(p.arena.base, arenaBytes);
  releasePages(memory, floats * 4);
  return best;
}

// -1 where GQA_PREFETCH leaves it open.
int forced() {
  const char* value = std::getenv("GQA_PREFETCH");
  return value == nullptr || *value == '\0' ? -1 : *value == '1';
}

}  // namespace

Prefetch prefetchFor(double bytes) {
  static const int choice = forced();
  if (choice >= 0) return choice == 1 ? expected() : Prefetch::off;
  if (bytes < kLeastBytes || !canFlush() || std::strcmp(opTable()->isa, "scalar") == 0) return expected();
  static const Prefetch best = measure();
  return best;
}

}  // namespace gqa
