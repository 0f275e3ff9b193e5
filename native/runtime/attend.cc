// Splits attention into tasks over (batch, KV head), query tiles and, where rows are few, runs of keys; merges the runs
// in a fixed order. Every split depends on the shapes alone, so that results have the same bits for any thread count.
#include <algorithm>
#include <atomic>

#include "runtime.h"

namespace gqa {
namespace {

// A position is below 2^53 (a JavaScript integer); a window beyond that hides nothing.
constexpr int64_t kWidestWindow = int64_t(1) << 53;
// Rows of a query tile at most: a packed block serves all of them, while their q and O come from L2 and L3. Packing
// tensors takes 7 % of a prefill's time at 480 rows.
constexpr int64_t kTileRows = 1440;
constexpr int64_t kLeastTileRows = 48;
// Tasks worth having, so that many threads find work; and keys of a run at least, so that merging stays cheap.
constexpr int64_t kWantedTasks = 32;
constexpr int64_t kLeastRunKeys = 256;
// Multiply-adds below which waking a thread costs more than it brings.
constexpr int64_t kInlineMultiplyAdds = 1 << 17;
// Floats of states that one thread merges in less time than another takes to join in.
constexpr int64_t kInlineMergeFloats = 1 << 15;

struct KeySpan {
  int64_t first, last;
};

struct AttendPlan {
  const OpTable* ops;
  AttendProblem problem;
  int64_t rows;  // of one (batch, KV head): queryTokens * group
  int64_t tileRows, tiles;
  int64_t runs;  // of keys, each `runKeys` long and a multiple of the block
  int64_t runKeys;
  int64_t width;  // valueDim padded to panels
  Prefetch prefetch;
  float* states;  // [batch][kvHeads][tile][run], where runs > 1
  std::atomic<bool> outOfMemory{false};

  int64_t stateFloats() const { return roundUp(tileRows * (width + 2), kLanes); }
  int64_t heads() const { return problem.batch * problem.kvHeads; }
};

// A state of `rows` rows laid over memory: outputs first, for their alignment.
RowStates statesAt(float* base, int64_t rows, int64_t width) {
  return {base + rows * width, base + rows * width + rows, base, width};
}

// Keys that some row of the tile may see, sinks and window as one span.
KeySpan tileKeys(const AttendPlan& plan, int64_t firstRow, int64_t rows) {
  const AttendProblem& p = plan.problem;
  const int64_t group = p.heads / p.kvHeads, shift = p.keyTokens - p.queryTokens;
  const int64_t low = firstRow / group + shift, high = (firstRow + rows - 1) / group + shift;
  const int64_t last = p.causal ? std::min(p.keyTokens, high + 1) : p.keyTokens;
  const int64_t first = p.sinkTokens > 0 ? 0 : std::max<int64_t>(0, low - p.window + 1);
  return {std::min(first, std::max<int64_t>(last, 0)), std::max<int64_t>(last, 0)};
}

int64_t visibleAtMost(const AttendPlan& plan) {
  const AttendProblem& p = plan.problem;
  const int64_t window = p.window >= p.keyTokens ? p.keyTokens : p.window + p.queryTokens + p.sinkTokens;
  return std::min(p.keyTokens, window);
}

void makePlan(AttendPlan& plan, const AttendProblem& problem) {
  plan.ops = opTable();
  plan.problem = problem;
  AttendProblem& p = plan.problem;
  p.window = std::min(p.window, kWidestWindow);
  p.sinkTokens = p.window >= p.keyTokens + p.queryTokens ? 0 : std::min(p.sinkTokens, p.keyTokens);
  plan.rows = p.queryTokens * (p.heads / p.kvHeads);
  plan.width = roundUp(p.valueDim, kLanes);
  const int64_t elements = plan.heads() * visibleAtMost(plan) * (p.headDim + p.valueDim);
  plan.prefetch = prefetchFor(elements * elementBytes(p.arena.base ? p.arena.layout.dtype : p.kvType));

  const int64_t heads = std::max<int64_t>(plan.heads(), 1);
  const int64_t even = roundUp((plan.rows * heads + kWantedTasks - 1) / kWantedTasks, 24);
  const int64_t most = std::clamp(even, kLeastTileRows, kTileRows);
  plan.tiles = (plan.rows + most - 1) / most;
  plan.tileRows = std::min(plan.rows, roundUp((plan.rows + plan.tiles - 1) / std::max<int64_t>(plan.tiles, 1), 24));

  const int64_t wanted = (kWantedTasks + heads * plan.tiles - 1) / std::max<int64_t>(heads * plan.tiles, 1);
  plan.runs = std::clamp<int64_t>(visibleAtMost(plan) / kLeastRunKeys, 1, std::max<int64_t>(wanted, 1));
  plan.runKeys = 0;
}

void runTask(AttendPlan& plan, int64_t head, int64_t tile, int64_t run, RowStates states) {
  const AttendProblem& p = plan.problem;
  const int64_t firstRow = tile * plan.tileRows, rows = std::min(plan.tileRows, plan.rows - firstRow);
  const KeySpan keys = tileKeys(plan, firstRow, rows);
  // Sinks belong to the first run; the other runs share what the window shows.
  const int64_t group = p.heads / p.kvHeads, low = firstRow / group + p.keyTokens - p.queryTokens;
  const int64_t shown = std::clamp(low - p.window + 1, keys.first, keys.last) / kMaxBlockTokens * kMaxBlockTokens;
  const int64_t length = roundUp((keys.last - shown + plan.runs - 1) / plan.runs, kMaxBlockTokens);
  const int64_t first = run == 0 ? keys.first : shown + run * length;
  const int64_t last = std::min(keys.last, shown + (run + 1) * length);

  plan.ops->initStates(states, rows, plan.width);
  if (first >= last) return;
  float* scratch = threadScratch(Scratch::task, plan.ops->attendScratchFloats(p, rows));
  if (!scratch) {
    plan.outOfMemory.store(true, std::memory_order_relaxed);
    return;
  }
  plan.ops->attend(
      {&p, head / p.kvHeads, head % p.kvHeads, firstRow, rows, first, last, states, scratch, plan.prefetch});
}

void finish(const AttendPlan& plan, int64_t head, int64_t tile, const RowStates& states) {
  const AttendProblem& p = plan.problem;
  const int64_t firstRow = tile * plan.tileRows;
  plan.ops->finish(p, head / p.kvHeads, head % p.kvHeads, firstRow, std::min(plan.tileRows, plan.rows - firstRow),
                   states);
}

// One (head, tile) from first key to last, its state in the thread's own scratch behind the kernel's.
void wholeTile(void* context, int64_t item) {
  AttendPlan& plan = *static_cast<AttendPlan*>(context);
  // The last tiles see the most keys under causality: start with them.
  const int64_t head = item % plan.heads(), tile = plan.tiles - 1 - item / plan.heads();
  const int64_t need = plan.ops->attendScratchFloats(plan.problem, plan.tileRows);
  float* scratch = threadScratch(Scratch::task, roundUp(need, kLanes) + plan.stateFloats());
  if (!scratch) {
    plan.outOfMemory.store(true, std::memory_order_relaxed);
    return;
  }
  const RowStates states = statesAt(scratch + roundUp(need, kLanes), plan.tileRows, plan.width);
  runTask(plan, head, tile, 0, states);
  finish(plan, head, tile, states);
}

float* stateOf(const AttendPlan& plan, int64_t head, int64_t tile, int64_t run) {
  return plan.states + ((head * plan.tiles + tile) * plan.runs + run) * plan.stateFloats();
}

void oneRun(void* context, int64_t item) {
  AttendPlan& plan = *static_cast<AttendPlan*>(context);
  const int64_t run = item % plan.runs, tile = item / plan.runs % plan.tiles, head = item / plan.runs / plan.tiles;
  runTask(plan, head, tile, run, statesAt(stateOf(plan, head, tile, run), plan.tileRows, plan.width));
}

void mergeRuns(void* context, int64_t item) {
  AttendPlan& plan = *static_cast<AttendPlan*>(context);
  const int64_t tile = item % plan.tiles, head = item / plan.tiles;
  const int64_t rows = std::min(plan.tileRows, plan.rows - tile * plan.tileRows);
  const RowStates merged = statesAt(stateOf(plan, head, tile, 0), plan.tileRows, plan.width);
  for (int64_t run = 1; run < plan.runs; ++run)
    plan.ops->mergeStates(merged, statesAt(stateOf(plan, head, tile, run), plan.tileRows, plan.width), rows,
                          plan.width);
  finish(plan, head, tile, merged);
}

bool each(const AttendPlan& plan, int64_t items, void (*body)(void*, int64_t), CancelFlag cancel, bool small) {
  void* context = const_cast<AttendPlan*>(&plan);
  if (!small) return parallelFor(items, body, context, cancel);
  for (int64_t i = 0; i < items; ++i) body(context, i);
  return true;
}

}  // namespace

Status attend(const AttendProblem& problem, CancelFlag cancel) {
  AttendPlan plan;
  makePlan(plan, problem);
  const AttendProblem& p = plan.problem;
  const int64_t tasks = plan.heads() * plan.tiles;
  if (tasks == 0) return Status::ok;
  const int64_t multiplyAdds = plan.rows * plan.heads() * visibleAtMost(plan) * (p.headDim + p.valueDim);
  const bool small = multiplyAdds <= kInlineMultiplyAdds;

  bool whole;
  if (plan.runs == 1) {
    whole = each(plan, tasks, wholeTile, cancel, small);
  } else {
    plan.states = threadScratch(Scratch::call, tasks * plan.runs * plan.stateFloats());
    if (!plan.states) return Status::outOfMemory;
    const bool smallMerge = plan.rows * plan.heads() * plan.runs * plan.width <= kInlineMergeFloats;
    whole = each(plan, tasks * plan.runs, oneRun, cancel, small) && each(plan, tasks, mergeRuns, cancel, smallMerge);
  }
  if (plan.outOfMemory.load(std::memory_order_relaxed)) return Status::outOfMemory;
  return whole ? Status::ok : Status::cancelled;
}

namespace {

struct StoreJob {
  const OpTable* ops;
  const StoreProblem* problem;
};

void storeHead(void* context, int64_t head) {
  const StoreJob& job = *static_cast<StoreJob*>(context);
  job.ops->store(*job.problem, head);
}

// Elements an append holds before other threads help: about ten microseconds of one thread's work.
constexpr int64_t kInlineStoreElements = 1 << 15;

}  // namespace

void store(const StoreProblem& problem) {
  StoreJob job = {opTable(), &problem};
  const BlockLayout& layout = problem.arena.layout;
  const int64_t elements = problem.count * problem.arena.kvHeads * (layout.headDim + layout.valueDim);
  if (elements > kInlineStoreElements) {
    parallelFor(problem.arena.kvHeads, storeHead, &job, nullptr);
    return;
  }
  for (int64_t head = 0; head < problem.arena.kvHeads; ++head) storeHead(&job, head);
}

}  // namespace gqa
