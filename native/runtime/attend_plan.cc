#include "attend_plan.h"

#include <algorithm>

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

struct KeySpan {
  int64_t first, last;
  bool empty() const { return first >= last; }
};

// Positions of a tile's first and last row.
struct RowSpan {
  int64_t low, high;
};

RowSpan positionsOf(const AttendPlan& plan, int64_t tile) {
  const AttendProblem& p = plan.problem;
  const int64_t group = p.heads / p.kvHeads, shift = p.keyTokens - p.queryTokens, first = tile * plan.tileRows;
  return {first / group + shift, (first + plan.rowsOf(tile) - 1) / group + shift};
}

// What rows at these positions may see of a span, sinks and window as one.
KeySpan visibleKeys(const AttendProblem& p, RowSpan rows, KeySpan keys) {
  const int64_t last = p.causal ? std::min(keys.last, rows.high + 1) : keys.last;
  const int64_t shown = std::max(keys.first, rows.low - p.window + 1), sinkEnd = std::min(last, p.sinkTokens);
  if (keys.first >= sinkEnd) return {shown, last};
  return {keys.first, shown < last ? last : sinkEnd};
}

int64_t visibleAtMost(const AttendPlan& plan) {
  const AttendProblem& p = plan.problem;
  const int64_t own = p.keyTokens - plan.firstKey;
  return p.window >= p.keyTokens ? own : std::min(own, p.window + p.queryTokens + p.sinkTokens);
}

bool isSegmented(const AttendProblem& p) { return p.tail.arena.base != nullptr || p.sinkQ != nullptr; }

// The problem as keys from `first` on have it, up to the returned one, `last` at most: those that one arena holds and
// one set of queries meets. A task folds one segment after the other into its states.
int64_t segmentAt(const AttendProblem& p, int64_t first, int64_t last, AttendProblem& segment) {
  segment = p;
  if (p.tail.arena.base != nullptr) {
    const int64_t blockTokens = p.arena.layout.blockTokens, ordinal = first / blockTokens;
    const bool sinks = ordinal < p.tail.sinkOrdinals;
    if (sinks || ordinal >= p.tail.firstOrdinal) {
      segment.arena = p.tail.arena;
      segment.table = p.tail.table;
    }
    if (sinks)
      last = std::min(last, p.tail.sinkOrdinals * blockTokens);
    else if (ordinal < p.tail.firstOrdinal)
      last = std::min(last, p.tail.firstOrdinal * blockTokens);
  }
  if (p.sinkQ != nullptr && first < p.sinkTokens) {
    segment.q = p.sinkQ;
    last = std::min(last, p.sinkTokens);
  }
  return last;
}

// The most that any segment's kernels need, for whole tiles and for the last one.
int64_t scratchFloats(const AttendPlan& plan) {
  const AttendProblem& p = plan.problem;
  AttendProblem tail = p;
  if (p.tail.arena.base != nullptr) tail.arena = p.tail.arena;
  int64_t most = 0;
  for (const int64_t rows : {plan.tileRows, plan.rowsOf(plan.tiles - 1)})
    for (const AttendProblem* source : {&p, static_cast<const AttendProblem*>(&tail)})
      most = std::max(most, plan.ops->attendScratchFloats(*source, rows));
  return roundUp(most, kLanes);
}

void cutRows(AttendPlan& plan) {
  const int64_t heads = std::max<int64_t>(plan.heads(), 1);
  const int64_t even = roundUp((plan.rows * heads + kWantedTasks - 1) / kWantedTasks, 24);
  const int64_t most = std::clamp(even, kLeastTileRows, kTileRows);
  plan.tiles = (plan.rows + most - 1) / most;
  plan.tileRows = std::min(plan.rows, roundUp((plan.rows + plan.tiles - 1) / std::max<int64_t>(plan.tiles, 1), 24));
  const int64_t tasks = std::max<int64_t>(heads * plan.tiles, 1);
  plan.runs = std::clamp<int64_t>(visibleAtMost(plan) / kLeastRunKeys, 1, (kWantedTasks + tasks - 1) / tasks);
}

// Keys of a task: sinks belong to the first run; the other runs share what the window shows.
KeySpan runKeys(const AttendPlan& plan, RowSpan rows, int64_t run) {
  const AttendProblem& p = plan.problem;
  const KeySpan keys = visibleKeys(p, rows, {plan.firstKey, p.keyTokens});
  if (keys.empty()) return keys;
  const int64_t shown = std::clamp(rows.low - p.window + 1, keys.first, keys.last) / kMaxBlockTokens * kMaxBlockTokens;
  const int64_t length = roundUp((keys.last - shown + plan.runs - 1) / plan.runs, kMaxBlockTokens);
  return {run == 0 ? keys.first : shown + run * length, std::min(keys.last, shown + (run + 1) * length)};
}

}  // namespace

AttendPlan makePlan(const AttendProblem& problem, int64_t firstKey) {
  AttendPlan plan = {};
  plan.ops = opTable();
  plan.problem = problem;
  plan.firstKey = firstKey;
  AttendProblem& p = plan.problem;
  p.window = std::min(p.window, kWidestWindow);
  const bool sinksMatter = p.sinkQ != nullptr || p.window < p.keyTokens + p.queryTokens;
  p.sinkTokens = sinksMatter ? std::min(p.sinkTokens, p.keyTokens) : 0;
  plan.rows = p.queryTokens * (p.heads / p.kvHeads);
  plan.width = roundUp(p.valueDim, kLanes);
  const int64_t elements = plan.heads() * visibleAtMost(plan) * (p.headDim + p.valueDim);
  plan.prefetch = prefetchFor(elements * elementBytes(p.keyType()));
  cutRows(plan);
  if (plan.tasks() > 0) plan.scratchFloats = scratchFloats(plan);
  return plan;
}

int64_t multiplyAdds(const AttendPlan& plan) {
  const AttendProblem& p = plan.problem;
  return plan.rows * plan.heads() * visibleAtMost(plan) * (p.headDim + p.valueDim);
}

void runTask(const AttendPlan& plan, int64_t head, int64_t tile, int64_t run, const RowStates& states, float* scratch) {
  const AttendProblem& p = plan.problem;
  const RowSpan positions = positionsOf(plan, tile);
  const KeySpan keys = runKeys(plan, positions, run);
  const int64_t rows = plan.rowsOf(tile);
  AttendTask task = {&p,        head / p.kvHeads, head % p.kvHeads, tile * plan.tileRows, rows, keys.first,
                     keys.last, states,           scratch,          plan.prefetch};
  plan.ops->initStates(states, rows, plan.width);
  if (keys.empty()) return;
  if (!isSegmented(p)) return plan.ops->attend(task);
  AttendProblem segment;
  task.problem = &segment;
  for (int64_t first = keys.first; first < keys.last;) {
    const int64_t last = segmentAt(p, first, keys.last, segment);
    // Tables need hold what rows see only, sinks at one end of a segment, the window at the other.
    const KeySpan seen = visibleKeys(segment, positions, {first, last});
    task.firstKey = seen.first;
    task.lastKey = seen.last;
    if (!seen.empty()) plan.ops->attend(task);
    first = last;
  }
}

void finishTile(const AttendPlan& plan, int64_t head, int64_t tile, const RowStates& states) {
  const AttendProblem& p = plan.problem;
  plan.ops->finish(p, head / p.kvHeads, head % p.kvHeads, tile * plan.tileRows, plan.rowsOf(tile), states);
}

}  // namespace gqa
