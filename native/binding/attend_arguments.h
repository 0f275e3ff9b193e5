// What calls of attend and attendStep have in common: shapes, features and arenas, checked against their arrays.
#pragma once
#include "arguments.h"

namespace gqa {

// Positions of the arguments; see AttendArrays in lib/backend/addon.ts.
namespace attend_position {
enum : int {
  q,
  out,
  keysOrIds,
  valuesOrArena,
  lse,
  mask,
  bias,
  alibi,
  sinkLogits,
  sinkQ,
  tailIds,
  tailArena,
  statistics,
  cancel,
  count
};
}

// The same of a step, whose ids are those of both tables; see StepArrays.
namespace step_position {
enum : int {
  entries = attend_position::mask,
  trees,
  shares = attend_position::tailIds,
  members = attend_position::cancel
};
}

inline double product(int64_t a, int64_t b, int64_t c, int64_t d) {
  return static_cast<double>(a) * static_cast<double>(b) * static_cast<double>(c) * static_cast<double>(d);
}

// Sizes, flags, q, out and the features that have no keys; returns the flags.
int readRows(Arguments& a, AttendProblem& p);
// The arena, the tail's arena and the queries of sinks, as far as the flags announce them.
void readArenas(Arguments& a, AttendProblem& p, int given);
// Whether both tables hold what some row sees of the keys that are theirs.
bool holdsVisible(const AttendProblem& p);

}  // namespace gqa
