// mergeAttention: finished parts as softmax states, a part of LSE s being (max = s log2 e, sum = 1, out). The merge is
// the kernels' own; LSEs are taken relative to the row's largest, which keeps large ones exact.
#include <algorithm>
#include <limits>

#include "runtime.h"

namespace gqa {
namespace {

constexpr float kLog2e = 1.44269504088896341f;
constexpr float kNone = -std::numeric_limits<float>::infinity();

float largestLse(const float* const* lses, int64_t count, int64_t row) {
  float largest = kNone;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, lses[i][row]);
  return largest == kNone ? 0.f : largest;
}

}  // namespace

bool merge(const void* const* outs, const float* const* lses, int64_t count, DType type, void* out, float* lse,
           int64_t rows, int64_t valueDim) {
  const OpTable* ops = opTable();
  const int64_t width = roundUp(valueDim, kLanes);
  float* scratch = threadScratch(Scratch::call, 2 * width + 4);
  if (!scratch) return false;
  const RowStates merged = {scratch + 2 * width, scratch + 2 * width + 1, scratch, width};
  const RowStates part = {scratch + 2 * width + 2, scratch + 2 * width + 3, scratch + width, width};

  AttendProblem problem = {};  // one head, so that a row of the problem is a row here
  problem.out = out;
  problem.outType = type;
  problem.lse = lse;
  problem.batch = problem.heads = problem.kvHeads = 1;
  problem.queryTokens = rows;
  problem.valueDim = valueDim;
  std::fill(part.out, part.out + width, 0.f);
  for (int64_t r = 0; r < rows; ++r) {
    const float largest = largestLse(lses, count, r);
    ops->initStates(merged, 1, width);
    for (int64_t i = 0; i < count; ++i) {
      if (lses[i][r] == kNone) continue;
      const char* values = static_cast<const char*>(outs[i]) + r * valueDim * elementBytes(type);
      ops->convert(values, type, part.out, DType::f32, valueDim);
      *part.max = (lses[i][r] - largest) * kLog2e;
      *part.sum = 1;
      ops->mergeStates(merged, part, 1, width);
    }
    ops->finish(problem, 0, 0, r, 1, merged);
    lse[r] += largest;
  }
  return true;
}

}  // namespace gqa
