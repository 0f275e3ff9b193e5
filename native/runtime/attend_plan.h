// One problem of attention cut into tasks: tiles of rows and, where those are few, runs of keys. Every cut depends on
// the problem's shape alone, so that results have the same bits for any thread count.
#pragma once
#include <atomic>

#include "runtime.h"

namespace gqa {

struct AttendPlan {
  const OpTable* ops;
  AttendProblem problem;
  int64_t firstKey;         // keys before it are not the plan's own
  int64_t rows;             // of one (batch, KV head): queryTokens * group
  int64_t tileRows, tiles;  // rows of a tile, but for the last
  int64_t runs;             // of keys
  int64_t width;            // valueDim padded to panels
  int64_t scratchFloats;    // of a task's kernel
  Prefetch prefetch;
  float* states;  // [heads][tile][run], where tasks leave them; null where each one finishes its own

  int64_t heads() const { return problem.batch * problem.kvHeads; }
  int64_t tasks() const { return heads() * tiles * runs; }
  int64_t rowsOf(int64_t tile) const { return tile + 1 < tiles ? tileRows : rows - tile * tileRows; }
  int64_t stateFloats() const { return roundUp(tileRows * (width + 2), kLanes); }
  // A state of a tile's rows laid over memory: outputs first, for their alignment.
  RowStates statesAt(float* base) const {
    return {base + tileRows * width, base + tileRows * width + tileRows, base, width};
  }
  RowStates statesOf(int64_t head, int64_t tile, int64_t run) const {
    return statesAt(states + ((head * tiles + tile) * runs + run) * stateFloats());
  }
};

// A plan for the problem's keys from firstKey on; `states` is null.
AttendPlan makePlan(const AttendProblem& problem, int64_t firstKey);
// Multiply-adds of all its tasks, at most.
int64_t multiplyAdds(const AttendPlan& plan);
// The states of a tile over a run of keys.
void runTask(const AttendPlan& plan, int64_t head, int64_t tile, int64_t run, const RowStates& states, float* scratch);
// Writes a tile's rows.
void finishTile(const AttendPlan& plan, int64_t head, int64_t tile, const RowStates& states);

}  // namespace gqa
