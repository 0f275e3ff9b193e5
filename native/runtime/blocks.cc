// What moves in and between arenas, a KV head at a time; on more threads only where that is worth waking them.
#include <atomic>

#include "runtime.h"

namespace gqa {
namespace {

// Elements that one thread moves in about ten microseconds.
constexpr int64_t kInlineElements = 1 << 15;

template <class Problem>
struct HeadsJob {
  const Problem* problem;
  void (*body)(const Problem&, int64_t kvHead, float* scratch);
  int64_t scratchFloats;
  std::atomic<bool> outOfMemory{false};

  HeadsJob(const Problem& p, void (*f)(const Problem&, int64_t, float*), int64_t floats)
      : problem(&p), body(f), scratchFloats(floats) {}

  static void run(void* context, int64_t head) {
    HeadsJob& job = *static_cast<HeadsJob*>(context);
    float* scratch = job.scratchFloats > 0 ? threadScratch(Scratch::task, job.scratchFloats) : nullptr;
    if (job.scratchFloats > 0 && !scratch) {
      job.outOfMemory.store(true, std::memory_order_relaxed);
      return;
    }
    job.body(*job.problem, head, scratch);
  }
};

// `elements` are those of all heads.
template <class Problem>
Status eachHead(const Problem& problem, void (*body)(const Problem&, int64_t, float*), int64_t scratchFloats,
                int64_t heads, int64_t elements) {
  HeadsJob<Problem> job(problem, body, scratchFloats);
  if (elements > kInlineElements)
    parallelFor(heads, HeadsJob<Problem>::run, &job, nullptr);
  else
    for (int64_t head = 0; head < heads; ++head) HeadsJob<Problem>::run(&job, head);
  return job.outOfMemory.load(std::memory_order_relaxed) ? Status::outOfMemory : Status::ok;
}

int64_t tokenElements(const ArenaView& arena) { return arena.kvHeads * (arena.layout.headDim + arena.layout.valueDim); }

}  // namespace

Status store(const StoreProblem& p) {
  return eachHead(p, opTable()->store, storeScratchFloats(p.arena.layout), p.arena.kvHeads,
                  p.count * tokenElements(p.arena));
}

Status copyBlock(const CopyProblem& p) {
  return eachHead(p, opTable()->copyBlock, copyScratchFloats(p), p.from.kvHeads,
                  p.from.layout.blockTokens * tokenElements(p.from));
}

void moveTokens(const MoveProblem& p) {
  for (int64_t head = 0; head < p.arena.kvHeads; ++head) opTable()->moveTokens(p, head);
}

void readBlock(const BlockBytes& p) {
  for (int64_t head = 0; head < p.arena.kvHeads; ++head) opTable()->readBlock(p, head);
}

void writeBlock(const BlockBytes& p) {
  for (int64_t head = 0; head < p.arena.kvHeads; ++head) opTable()->writeBlock(p, head);
}

}  // namespace gqa
