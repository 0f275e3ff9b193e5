// Linear layers and weight packing, split over panels of output features and, in prefill, over tokens.
#include <algorithm>

#include "runtime.h"

namespace gqa {
namespace {

// Vectors of a task: four panels, so that most have a successor to prefetch.
constexpr int64_t kTaskVectors = 4 * kPanelLanes / kLanes;
constexpr int64_t kTaskTokens = 240;
constexpr int64_t kInlineMultiplyAdds = 1 << 15;

struct LinearJob {
  const OpTable* ops;
  LinearProblem problem;
  int64_t featureTasks;
};

void linearTask(void* context, int64_t item) {
  const LinearJob& job = *static_cast<LinearJob*>(context);
  const int64_t vector = item % job.featureTasks * kTaskVectors, token = item / job.featureTasks * kTaskTokens;
  job.ops->linear(job.problem, vector, std::min(vector + kTaskVectors, job.problem.weights.layout().vectors()), token,
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
  const int64_t vector = item * kTaskVectors;
  job.ops->packWeights(job.weights, job.weight, job.type, vector,
                       std::min(vector + kTaskVectors, job.weights.layout().vectors()));
}

int64_t tasksOf(int64_t n, int64_t size) { return (n + size - 1) / size; }

}  // namespace

void linear(const LinearProblem& problem) {
  LinearJob job = {opTable(), problem, tasksOf(problem.weights.layout().vectors(), kTaskVectors)};
  job.problem.prefetch = prefetchPays();
  if (problem.tokens * problem.weights.rows * problem.weights.columns <= kInlineMultiplyAdds) {
    job.ops->linear(job.problem, 0, problem.weights.layout().vectors(), 0, problem.tokens);
    return;
  }
  parallelFor(job.featureTasks * tasksOf(problem.tokens, kTaskTokens), linearTask, &job, nullptr);
}

void packWeights(const WeightsView& weights, const void* weight, DType type) {
  PackJob job = {opTable(), weights, weight, type};
  parallelFor(tasksOf(weights.layout().vectors(), kTaskVectors), packTask, &job, nullptr);
}

}  // namespace gqa
