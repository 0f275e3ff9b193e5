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
// Over a cache runs end at multiples of so many keys, and states of no more floats than this are kept to be merged.
constexpr int64_t kCacheRunKeys = 256;
constexpr int64_t kMostStateFloats = int64_t(1) << 23;

struct KeySpan {
  int64_t first, last;
  bool empty() const { return first >= last; }
};

// Positions of a tile's rows. Those of a tree see any of its keys, whatever their own position: no window may begin
// behind the tree's first token.
RowSpan tilePositions(const AttendPlan& plan, int64_t tile) {
  const AttendProblem& p = plan.problem;
  const int64_t group = p.heads / p.kvHeads, first = tile * plan.tileRows;
  RowSpan span = positionsOf(p, first / group, (first + plan.rowsOf(tile) - 1) / group);
  if (p.tree) span.low = std::min(span.low, p.keyTokens - p.queryTokens + p.window - 1);
  return span;
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

bool isSegmented(const AttendProblem& p) { return p.tail.arena.base != nullptr || p.sinkQ != nullptr || p.tree; }

// The problem as keys from `first` on have it, up to the returned one, `last` at most: those that one arena holds, one
// set of queries meets and one rule shows. A task folds one segment after the other into its states.
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
  const int64_t firstToken = p.keyTokens - p.queryTokens;
  if (p.tree && first < firstToken) {
    segment.tree = false;
    segment.mask = {};
    last = std::min(last, firstToken);
  } else if (p.tree) {
    segment.window = kWidestWindow;  // the mask has it
    segment.sinkTokens = 0;
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
}

bool cutsAtPositions(const AttendPlan& plan) { return plan.problem.arena.base != nullptr; }

// States of runs are merged in their order, be it by the task that folds them or by whoever merges those of tasks: the
// same bits.
void cutKeys(AttendPlan& plan, int64_t plans) {
  const int64_t tasks = std::max<int64_t>(plan.heads() * plan.tiles, 1), visible = visibleAtMost(plan);
  plan.folded = 1;
  if (!cutsAtPositions(plan)) {
    plan.runs = std::clamp<int64_t>(visible / kLeastRunKeys, 1, (kWantedTasks + tasks - 1) / tasks);
    return;
  }
  const int64_t held = (plan.problem.keyTokens + kCacheRunKeys - 1) / kCacheRunKeys - plan.firstKey / kCacheRunKeys;
  plan.runs = std::clamp<int64_t>(visible / kCacheRunKeys + 2, 1, std::max<int64_t>(held, 1));
  if (tasks * plans >= kWantedTasks || tasks * plan.runs * plan.stateFloats() > kMostStateFloats)
    std::swap(plan.runs, plan.folded);
}

// Keys of a run: sinks belong to the first; the others share what the window shows.
KeySpan runKeys(const AttendPlan& plan, RowSpan rows, int64_t run) {
  const AttendProblem& p = plan.problem;
  const KeySpan keys = visibleKeys(p, rows, {plan.firstKey, p.keyTokens});
  if (keys.empty()) return keys;
  const bool fixed = cutsAtPositions(plan);
  const int64_t unit = fixed ? kCacheRunKeys : kMaxBlockTokens;
  const int64_t shown = std::clamp(rows.low - p.window + 1, keys.first, keys.last) / unit * unit;
  const int64_t length = fixed ? unit : roundUp((keys.last - shown + plan.runs - 1) / plan.runs, unit);
  return {run == 0 ? keys.first : shown + run * length, std::min(keys.last, shown + (run + 1) * length)};
}

RowStates rowsFrom(const RowStates& s, int64_t row) {
  return {s.max + row, s.sum + row, s.out + row * s.stride, s.stride,
          s.statistics == nullptr ? nullptr : s.statistics + row};
}

// A task's rows against a run of keys, segment by segment.
void attendRun(const AttendPlan& plan, RowSpan positions, KeySpan keys, AttendTask task) {
  if (keys.empty()) return;
  if (!isSegmented(plan.problem)) return plan.ops->attend(task);
  AttendProblem segment;
  task.problem = &segment;
  for (int64_t first = keys.first; first < keys.last;) {
    const int64_t last = segmentAt(plan.problem, first, keys.last, segment);
    // Tables need hold what rows see only, sinks at one end of a segment, the window at the other.
    const KeySpan seen = visibleKeys(segment, positions, {first, last});
    task.firstKey = seen.first;
    task.lastKey = seen.last;
    if (!seen.empty()) plan.ops->attend(task);
    first = last;
  }
}

// Rows of a tile may lie in several tiles of the plan they share.
void mergeShared(const AttendPlan& plan, const SharedStates& shared, int64_t head, int64_t tile,
                 const RowStates& merged) {
  const AttendPlan& from = *shared.plan;
  const int64_t first = shared.firstRow + tile * plan.tileRows, rows = plan.rowsOf(tile);
  for (int64_t row = 0, count; row < rows; row += count) {
    const int64_t fromTile = (first + row) / from.tileRows, fromRow = (first + row) % from.tileRows;
    count = std::min(rows - row, from.tileRows - fromRow);
    for (int64_t run = 0; run < from.runs; ++run) {
      const RowStates part = rowsFrom(from.statesOf(head, fromTile, run), fromRow);
      plan.ops->mergeStates(rowsFrom(merged, row), part, count, plan.width);
    }
  }
}

}  // namespace

AttendPlan makePlan(const AttendProblem& problem, int64_t firstKey, int64_t plans) {
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
  plan.finishes = true;
  plan.prefetch = prefetchFor(keyBytes(plan));
  cutRows(plan);
  cutKeys(plan, plans);
  if (plan.tasks() > 0) plan.scratchFloats = scratchFloats(plan);
  return plan;
}

double multiplyAdds(const AttendPlan& plan) {
  const AttendProblem& p = plan.problem;
  return double(plan.rows * plan.heads()) * double(visibleAtMost(plan)) * double(p.headDim + p.valueDim);
}

double keyBytes(const AttendPlan& plan) {
  const AttendProblem& p = plan.problem;
  const int64_t dims = (p.headDim + p.valueDim) * elementBytes(p.keyType());
  return double(plan.heads()) * double(visibleAtMost(plan)) * double(dims);
}

void runTask(const AttendPlan& plan, int64_t head, int64_t tile, int64_t run, const RowStates& states,
             const RowStates& spare, float* scratch) {
  const AttendProblem& p = plan.problem;
  const RowSpan positions = tilePositions(plan, tile);
  const int64_t rows = plan.rowsOf(tile);
  for (int64_t i = 0; i < plan.folded; ++i) {
    const KeySpan keys = runKeys(plan, positions, run + i);
    if (i > 0 && keys.empty()) return;
    const RowStates& to = i == 0 ? states : spare;
    plan.ops->initStates(to, rows, plan.width);
    attendRun(plan, positions, keys,
              {&p, head / p.kvHeads, head % p.kvHeads, tile * plan.tileRows, rows, keys.first, keys.last, to, scratch,
               plan.prefetch});
    if (i > 0) plan.ops->mergeStates(states, spare, rows, plan.width);
  }
}

RowStates mergeTile(const AttendPlan& plan, int64_t head, int64_t tile) {
  const RowStates merged = plan.statesOf(head, tile, 0);
  const int64_t rows = plan.rowsOf(tile);
  for (int64_t run = 1; run < plan.runs; ++run)
    plan.ops->mergeStates(merged, plan.statesOf(head, tile, run), rows, plan.width);
  for (const SharedStates* shared = plan.shared; shared != nullptr; shared = shared->next)
    mergeShared(plan, *shared, head, tile, merged);
  return merged;
}

void finishTile(const AttendPlan& plan, int64_t head, int64_t tile, const RowStates& states) {
  const AttendProblem& p = plan.problem;
  plan.ops->finish(p, head / p.kvHeads, head % p.kvHeads, tile * plan.tileRows, plan.rowsOf(tile), states);
}

}  // namespace gqa
