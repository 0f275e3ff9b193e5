// Attention over threads: the tasks of one or several plans, then, where those left states behind, the merging of
// these.
#include <algorithm>
#include <atomic>

#include "attend_plan.h"

namespace gqa {
namespace {

// Multiply-adds below which waking a thread costs more than it brings.
constexpr int64_t kInlineMultiplyAdds = 1 << 17;
// Floats of states that one thread merges in less time than another takes to join in.
constexpr int64_t kInlineMergeFloats = 1 << 15;

struct AttendJob {
  AttendPlan* plans;
  const int64_t* order;
  int64_t count;
  int64_t* firstTask;   // [count + 1], of the plans in their order
  int64_t* firstMerge;  // [count + 1]
  std::atomic<bool> outOfMemory{false};

  // The plan to which item `item` belongs, and which of its own items that is.
  const AttendPlan& planOf(const int64_t* firsts, int64_t item, int64_t& own) const {
    const int64_t index = std::upper_bound(firsts, firsts + count, item) - firsts - 1;
    own = item - firsts[index];
    return plans[order[index]];
  }
};

// A tile over a run of keys; where that is all of its keys, its state lies in the thread's own scratch behind the
// kernel's, and its rows are written at once.
void oneTask(void* context, int64_t item) {
  AttendJob& job = *static_cast<AttendJob*>(context);
  int64_t own;
  const AttendPlan& plan = job.planOf(job.firstTask, item, own);
  // The last tiles see the most keys under causality: start with them.
  const int64_t run = own % plan.runs, head = own / plan.runs % plan.heads();
  const int64_t tile = plan.tiles - 1 - own / plan.runs / plan.heads();
  const bool keeps = plan.keepsStates();
  const int64_t stateFloats = plan.stateFloats() * ((keeps ? 0 : 1) + (plan.folded > 1 ? 1 : 0));
  float* scratch = threadScratch(Scratch::task, plan.scratchFloats + stateFloats);
  if (scratch == nullptr) {
    job.outOfMemory.store(true, std::memory_order_relaxed);
    return;
  }
  const RowStates here = plan.statesAt(scratch + plan.scratchFloats);
  const RowStates states = keeps ? plan.statesOf(head, tile, run) : here;
  const RowStates spare = keeps ? here : plan.statesAt(scratch + plan.scratchFloats + plan.stateFloats());
  runTask(plan, head, tile, run, states, spare, scratch);
  if (!keeps) finishTile(plan, head, tile, states);
}

void oneMerge(void* context, int64_t item) {
  AttendJob& job = *static_cast<AttendJob*>(context);
  int64_t own;
  const AttendPlan& plan = job.planOf(job.firstMerge, item, own);
  const int64_t tile = own % plan.tiles, head = own / plan.tiles;
  finishTile(plan, head, tile, mergeTile(plan, head, tile));
}

// Numbers the items of all plans, and gives those that keep states their memory. False when memory is short.
bool prepare(AttendJob& job) {
  int64_t tasks = 0, merges = 0, floats = 0;
  for (int64_t i = 0; i < job.count; ++i) {
    const AttendPlan& plan = job.plans[job.order[i]];
    job.firstTask[i] = tasks;
    job.firstMerge[i] = merges;
    tasks += plan.tasks();
    if (!plan.keepsStates()) continue;
    if (plan.finishes) merges += plan.heads() * plan.tiles;
    floats += plan.tasks() * plan.stateFloats();
  }
  job.firstTask[job.count] = tasks;
  job.firstMerge[job.count] = merges;
  if (floats == 0) return true;
  float* states = threadScratch(Scratch::call, floats);
  for (int64_t i = 0; i < job.count; ++i) {
    AttendPlan& plan = job.plans[job.order[i]];
    if (!plan.keepsStates()) continue;
    plan.states = states;
    if (states != nullptr) states += plan.tasks() * plan.stateFloats();
  }
  return states != nullptr;
}

// Floats of states that merging a plan's tiles reads.
int64_t mergeFloats(const AttendPlan& plan) {
  int64_t runs = plan.finishes && plan.keepsStates() ? plan.runs : 0;
  for (const SharedStates* shared = plan.shared; shared != nullptr; shared = shared->next) runs += shared->plan->runs;
  return plan.rows * plan.heads() * runs * plan.width;
}

bool each(AttendJob& job, int64_t items, void (*body)(void*, int64_t), CancelFlag cancel, bool small) {
  if (!small) return parallelFor(items, body, &job, cancel);
  for (int64_t i = 0; i < items; ++i) body(&job, i);
  return true;
}

}  // namespace

Status attendPlans(AttendPlan* plans, const int64_t* order, int64_t* firsts, int64_t count, CancelFlag cancel) {
  AttendJob job = {plans, order, count, firsts, firsts + count + 1};
  if (!prepare(job)) return Status::outOfMemory;
  double work = 0;
  int64_t merging = 0;
  for (int64_t i = 0; i < count; ++i) {
    work += multiplyAdds(plans[i]);
    merging += mergeFloats(plans[i]);
  }
  const bool whole = each(job, job.firstTask[count], oneTask, cancel, work <= kInlineMultiplyAdds) &&
                     each(job, job.firstMerge[count], oneMerge, cancel, merging <= kInlineMergeFloats);
  if (job.outOfMemory.load(std::memory_order_relaxed)) return Status::outOfMemory;
  return whole ? Status::ok : Status::cancelled;
}

Status attend(const AttendProblem& problem, CancelFlag cancel) {
  AttendPlan plan = makePlan(problem, 0, 1);
  const int64_t order = 0;
  int64_t firsts[4];
  return attendPlans(&plan, &order, firsts, 1, cancel);
}

}  // namespace gqa
