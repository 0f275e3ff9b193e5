// Attention over threads: the tasks of a plan, then, where keys are cut into runs, the merging of their states in a
// fixed order.
#include <atomic>

#include "attend_plan.h"

namespace gqa {
namespace {

// Multiply-adds below which waking a thread costs more than it brings.
constexpr int64_t kInlineMultiplyAdds = 1 << 17;
// Floats of states that one thread merges in less time than another takes to join in.
constexpr int64_t kInlineMergeFloats = 1 << 15;

struct AttendJob {
  AttendPlan plan;
  std::atomic<bool> outOfMemory{false};

  // This thread's scratch for a task, and `more` floats behind it; null when memory is short.
  float* scratch(int64_t more) {
    float* memory = threadScratch(Scratch::task, plan.scratchFloats + more);
    if (memory == nullptr) outOfMemory.store(true, std::memory_order_relaxed);
    return memory;
  }
};

// One (head, tile) from first key to last, its state in the thread's own scratch behind the kernel's.
void wholeTile(void* context, int64_t item) {
  AttendJob& job = *static_cast<AttendJob*>(context);
  const AttendPlan& plan = job.plan;
  // The last tiles see the most keys under causality: start with them.
  const int64_t head = item % plan.heads(), tile = plan.tiles - 1 - item / plan.heads();
  float* scratch = job.scratch(plan.stateFloats());
  if (scratch == nullptr) return;
  const RowStates states = plan.statesAt(scratch + plan.scratchFloats);
  runTask(plan, head, tile, 0, states, scratch);
  finishTile(plan, head, tile, states);
}

void oneRun(void* context, int64_t item) {
  AttendJob& job = *static_cast<AttendJob*>(context);
  const AttendPlan& plan = job.plan;
  const int64_t run = item % plan.runs, tile = item / plan.runs % plan.tiles, head = item / plan.runs / plan.tiles;
  float* scratch = job.scratch(0);
  if (scratch != nullptr) runTask(plan, head, tile, run, plan.statesOf(head, tile, run), scratch);
}

void mergeRuns(void* context, int64_t item) {
  const AttendPlan& plan = static_cast<AttendJob*>(context)->plan;
  const int64_t tile = item % plan.tiles, head = item / plan.tiles;
  const RowStates merged = plan.statesOf(head, tile, 0);
  for (int64_t run = 1; run < plan.runs; ++run)
    plan.ops->mergeStates(merged, plan.statesOf(head, tile, run), plan.rowsOf(tile), plan.width);
  finishTile(plan, head, tile, merged);
}

bool each(AttendJob& job, int64_t items, void (*body)(void*, int64_t), CancelFlag cancel, bool small) {
  if (!small) return parallelFor(items, body, &job, cancel);
  for (int64_t i = 0; i < items; ++i) body(&job, i);
  return true;
}

}  // namespace

Status attend(const AttendProblem& problem, CancelFlag cancel) {
  AttendJob job = {makePlan(problem, 0)};
  AttendPlan& plan = job.plan;
  if (plan.tasks() == 0) return Status::ok;
  const bool small = multiplyAdds(plan) <= kInlineMultiplyAdds;
  bool whole;
  if (plan.runs == 1) {
    whole = each(job, plan.tasks(), wholeTile, cancel, small);
  } else {
    plan.states = threadScratch(Scratch::call, plan.tasks() * plan.stateFloats());
    if (plan.states == nullptr) return Status::outOfMemory;
    const bool smallMerge = plan.rows * plan.heads() * plan.runs * plan.width <= kInlineMergeFloats;
    whole = each(job, plan.tasks(), oneRun, cancel, small) &&
            each(job, plan.heads() * plan.tiles, mergeRuns, cancel, smallMerge);
  }
  if (job.outOfMemory.load(std::memory_order_relaxed)) return Status::outOfMemory;
  return whole ? Status::ok : Status::cancelled;
}

}  // namespace gqa
