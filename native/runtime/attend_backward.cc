// The backward pass of attention over threads. A task owns its query rows and so their gradients; keys and values get
// theirs from all rows of their group. Where (batch, KV head) pairs alone are too few tasks, query tokens are cut into
// runs: the first writes to gradK and gradV, each other one to arrays of its own, added to those in the runs' order.
#include <algorithm>
#include <atomic>

#include "training.h"

namespace gqa {
namespace {

// A position is below 2^53 (a JavaScript integer); a window beyond that hides nothing.
constexpr int64_t kWidestWindow = int64_t(1) << 53;
// Tasks worth having, so that many threads find work; rows of one at least, so that bringing a block's keys and values
// into their orders stays cheap beside them; and floats of other runs' gradients at most.
constexpr int64_t kWantedTasks = 32;
constexpr int64_t kLeastRunRows = 192;
constexpr int64_t kMostPartials = int64_t(1) << 26;
// Rows that a task takes at once: with their gradients they stay in L2.
constexpr int64_t kChunkRows = 1024;
// Elements of a merging task: they stay in L1 while all runs are added.
constexpr int64_t kMergeElements = 1 << 12;

int64_t tasksOf(int64_t n, int64_t size) { return (n + size - 1) / size; }

struct BackwardJob {
  const OpTable* ops;
  AttendBackwardProblem problem;
  int64_t heads = 0;  // (batch, KV head) pairs
  int64_t runs = 0, runTokens = 0, chunkTokens = 0;
  int64_t keyFloats = 0, valueFloats = 0;  // of gradK and gradV
  float* partials = nullptr;               // [runs - 1], gradK then gradV
  std::atomic<bool> outOfMemory{false};

  float* gradK(int64_t run) const {
    return run == 0 ? problem.gradK : partials + (run - 1) * (keyFloats + valueFloats);
  }
  float* gradV(int64_t run) const { return run == 0 ? problem.gradV : gradK(run) + keyFloats; }
};

void cutTokens(BackwardJob& job) {
  const AttendProblem& p = job.problem.forward;
  const int64_t group = p.heads / p.kvHeads;
  job.heads = p.batch * p.kvHeads;
  job.keyFloats = job.heads * p.keyTokens * p.headDim;
  job.valueFloats = job.heads * p.keyTokens * p.valueDim;
  const int64_t affordable = 1 + kMostPartials / std::max<int64_t>(1, job.keyFloats + job.valueFloats);
  const int64_t most = std::min(
      {tasksOf(kWantedTasks, std::max<int64_t>(1, job.heads)), affordable, p.queryTokens * group / kLeastRunRows});
  job.runTokens = std::max<int64_t>(1, tasksOf(p.queryTokens, std::max<int64_t>(1, most)));
  job.runs = std::max<int64_t>(1, tasksOf(p.queryTokens, job.runTokens));
  job.chunkTokens = std::max<int64_t>(1, kChunkRows / std::max<int64_t>(1, group));
}

// A run of query tokens of one head, a chunk after the other. The last runs see the most keys under causality: start
// with them.
void oneRun(void* context, int64_t item) {
  BackwardJob& job = *static_cast<BackwardJob*>(context);
  const AttendProblem& p = job.problem.forward;
  const int64_t run = job.runs - 1 - item / job.heads, head = item % job.heads;
  const int64_t begin = run * job.runTokens, end = std::min(p.queryTokens, begin + job.runTokens);
  const int64_t most = std::min(job.chunkTokens, end - begin);
  float* scratch = threadScratch(Scratch::task, job.ops->training->attendBackwardFloats(job.problem, most));
  if (scratch == nullptr) {
    job.outOfMemory.store(true, std::memory_order_relaxed);
    return;
  }
  AttendBackwardTask task = {&job.problem, head / p.kvHeads, head % p.kvHeads, begin, 0, job.gradK(run), job.gradV(run),
                             false,        scratch};
  do {  // once at least: where there are no queries gradients are zero
    task.tokens = std::min(job.chunkTokens, end - task.firstToken);
    job.ops->training->attendBackward(task);
    task.firstToken += task.tokens;
    task.add = true;
  } while (task.firstToken < end);
}

// A piece of gradK or gradV: what all other runs have for it.
void oneMerge(void* context, int64_t item) {
  const BackwardJob& job = *static_cast<BackwardJob*>(context);
  const int64_t keyItems = tasksOf(job.keyFloats, kMergeElements);
  const bool keys = item < keyItems;
  const int64_t at = (keys ? item : item - keyItems) * kMergeElements;
  const int64_t count = std::min(kMergeElements, (keys ? job.keyFloats : job.valueFloats) - at);
  for (int64_t run = 1; run < job.runs; run++)
    job.ops->add((keys ? job.gradK(0) : job.gradV(0)) + at, (keys ? job.gradK(run) : job.gradV(run)) + at, count);
}

}  // namespace

Status attendBackward(const AttendBackwardProblem& problem) {
  BackwardJob job = {opTable(), problem};
  AttendProblem& p = job.problem.forward;
  p.window = std::min(p.window, kWidestWindow);
  p.sinkTokens = p.window < p.keyTokens + p.queryTokens ? std::min(p.sinkTokens, p.keyTokens) : 0;
  cutTokens(job);
  if (job.runs > 1) {
    job.partials = threadScratch(Scratch::call, (job.runs - 1) * (job.keyFloats + job.valueFloats));
    if (job.partials == nullptr) return Status::outOfMemory;
  }
  parallelFor(job.heads * job.runs, oneRun, &job, nullptr);
  if (job.outOfMemory.load(std::memory_order_relaxed)) return Status::outOfMemory;
  if (job.runs > 1)
    parallelFor(tasksOf(job.keyFloats, kMergeElements) + tasksOf(job.valueFloats, kMergeElements), oneMerge, &job,
                nullptr);
  return Status::ok;
}

}  // namespace gqa
