// One problem of attention cut into tasks: tiles of rows and, where those are few, runs of keys. Every cut that has a
// part in results depends on the problem's shape alone: the same bits for any thread count. Keys of a cache are cut at
// fixed positions, so that a row's bits do not depend on the rows beside it either: whether a prompt came whole or in
// chunks, and what else a step has.
#pragma once
#include "runtime.h"

namespace gqa {

struct AttendPlan;

// A plan that others' rows take part in: its states of rows from firstRow on are theirs too.
struct SharedStates {
  const AttendPlan* plan;
  int64_t firstRow;
  const SharedStates* next;
};

struct AttendPlan {
  const OpTable* ops;
  AttendProblem problem;
  int64_t firstKey;         // keys before it are not the plan's own
  int64_t rows;             // of one (batch, KV head): queryTokens * group
  int64_t tileRows, tiles;  // rows of a tile, but for the last
  int64_t runs;             // of keys, a task each
  int64_t folded;           // runs that a task takes one after the other instead; 1 where runs are tasks
  int64_t width;            // valueDim padded to panels
  int64_t scratchFloats;    // of a task's kernel
  Prefetch prefetch;
  const SharedStates* shared;  // what its rows have seen before firstKey; null for nothing
  bool finishes;               // and does not leave its states to others
  float* states;               // [heads][tile][run], where tasks leave them; null where each one finishes its own

  int64_t heads() const { return problem.batch * problem.kvHeads; }
  int64_t tasks() const { return heads() * tiles * runs; }
  bool keepsStates() const { return runs > 1 || shared != nullptr || !finishes; }
  int64_t rowsOf(int64_t tile) const { return tile + 1 < tiles ? tileRows : rows - tile * tileRows; }
  bool observes() const { return problem.statistics.data != nullptr; }
  int64_t stateFloats() const { return roundUp(tileRows * (width + 2 + (observes() ? kStatistics : 0)), kLanes); }
  // A state of a tile's rows laid over memory: outputs first, for their alignment.
  RowStates statesAt(float* base) const {
    float* max = base + tileRows * width;
    float* behind = max + 2 * tileRows;
    return {max, max + tileRows, base, width, observes() ? reinterpret_cast<RowStatistics*>(behind) : nullptr};
  }
  RowStates statesOf(int64_t head, int64_t tile, int64_t run) const {
    return statesAt(states + ((head * tiles + tile) * runs + run) * stateFloats());
  }
};

// A plan that finishes the problem's rows, for its keys from firstKey on; one of `plans` that share the threads.
AttendPlan makePlan(const AttendProblem& problem, int64_t firstKey, int64_t plans);
// Multiply-adds of its tasks, and bytes of keys and values that they read, at most; there is no largest sequence.
double multiplyAdds(const AttendPlan& plan);
double keyBytes(const AttendPlan& plan);
// The states of a tile over a run of keys, or over all of them; `spare` are states too, where runs are folded.
void runTask(const AttendPlan& plan, int64_t head, int64_t tile, int64_t run, const RowStates& states,
             const RowStates& spare, float* scratch);
// Merges a tile's states, in a fixed order, into those of its first run.
RowStates mergeTile(const AttendPlan& plan, int64_t head, int64_t tile);
// Writes a tile's rows.
void finishTile(const AttendPlan& plan, int64_t head, int64_t tile, const RowStates& states);

// ---- attend.cc
// Runs the tasks of `count` plans, those of plans early in `order` first; `firsts` takes 2 * (count + 1) numbers.
Status attendPlans(AttendPlan* plans, const int64_t* order, int64_t* firsts, int64_t count, CancelFlag cancel);

}  // namespace gqa
