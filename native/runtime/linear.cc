// Linear layers and weight packing, split over panels of output features and, in prefill, over tokens.
#include <algorithm>

#include "runtime.h"

namespace gqa {
namespace {

// Panels of a task: a multiple of the 8 that a token's registers take at once.
constexpr int64_t kTaskPanels = 8;
constexpr int64_t kTaskTokens = 240;
constexpr int64_t kPrefetchBytes = 1024;
constexpr int64_t kInlineMultiplyAdds = 1 << 15;

struct LinearJob {
  const OpTable* ops;
  LinearProblem problem;
  int64_t panelTasks;
};

void linearTask(void* context, int64_t item) {
  const LinearJob& job = *static_cast<LinearJob*>(context);
  const int64_t panel = item % job.panelTasks * kTaskPanels, token = item / job.panelTasks * kTaskTokens;
  job.ops->linear(job.problem, panel, std::min(panel + kTaskPanels, job.problem.weights.panels()), token,
                  std::min(token + kTaskTokens, job.problem.tokens));
}

struct PackJob {
  const OpTable* ops;
  WeightsView weights;
  const void* weight;
  DType type;
};

void packTask(void* context, int64_t item) {
  const PackJob& job = *static_cast<PackJob*>(context);
  const int64_t panel = item * kTaskPanels;
  job.ops->packWeights(job.weights, job.weight, job.type, panel, std::min(panel + kTaskPanels, job.weights.panels()));
}

int64_t tasksOf(int64_t n, int64_t size) { return (n + size - 1) / size; }

}  // namespace

void linear(const LinearProblem& problem) {
  LinearJob job = {opTable(), problem, tasksOf(problem.weights.panels(), kTaskPanels)};
  job.problem.prefetch = prefetchPays() ? kPrefetchBytes : 0;
  if (problem.tokens * problem.weights.rows * problem.weights.columns <= kInlineMultiplyAdds) {
    job.ops->linear(job.problem, 0, problem.weights.panels(), 0, problem.tokens);
    return;
  }
  parallelFor(job.panelTasks * tasksOf(problem.tokens, kTaskTokens), linearTask, &job, nullptr);
}

void packWeights(const WeightsView& weights, const void* weight, DType type) {
  PackJob job = {opTable(), weights, weight, type};
  parallelFor(tasksOf(weights.panels(), kTaskPanels), packTask, &job, nullptr);
}

}  // namespace gqa
