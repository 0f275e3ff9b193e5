// Linear layers and their weights: the input is brought into the forms that the weights want, then the products are
// split over output features and, where there are many tokens, over tokens. Bits depend on neither split.
#include <algorithm>

#include "runtime.h"

namespace gqa {
namespace {

// Vectors that are packed together: whole panels.
constexpr int64_t kPackVectors = 4 * kPanelVectors;
// Many tokens: those of a task (whole tiles), and its output features.
constexpr int64_t kTaskTokens = 32 * kTileTokens;
constexpr int64_t kTaskVectors = kPanelVectors;
// Few tokens: a task reads about so many bytes of weights, and there are not more tasks than so many.
constexpr int64_t kFewTokens = 4 * kTileTokens;
constexpr int64_t kTaskBytes = 48 << 10;
constexpr int64_t kMostTasks = 64;
// Panels in a row are read faster than as many alone, as each fetches the next: so many tasks for each thread will do,
// but for tasks of many panels.
constexpr int64_t kSharedTasks = 6;
constexpr int64_t kMostTaskVectors = 16 * kPanelVectors;
// Output features are split at multiples of two vectors: a pass over half a panel still reads whole runs of lines.
constexpr int64_t kSplitVectors = 2;
constexpr int64_t kInlineMultiplyAdds = 1 << 15;

int64_t tasksOf(int64_t n, int64_t size) { return (n + size - 1) / size; }

struct LinearJob {
  const OpTable* ops;
  LinearProblem problem;
  // Tasks of the parts: those of part i begin at firstTask[i]. Gates and ups are one.
  int64_t partTasks[kMaxLinearParts];
  int64_t featureTasks, taskTokens;
  std::atomic<bool> outOfMemory;
};

// Vectors [first, last) of the task-th of `tasks` even shares.
int64_t shareStart(int64_t vectors, int64_t tasks, int64_t task) {
  const int64_t units = tasksOf(vectors, kSplitVectors);
  return std::min(vectors, units * task / tasks * kSplitVectors);
}

void linearTask(void* context, int64_t item) {
  const LinearJob& job = *static_cast<LinearJob*>(context);
  const int64_t token = item / job.featureTasks * job.taskTokens;
  int64_t task = item % job.featureTasks, part = 0;
  for (; task >= job.partTasks[part]; ++part) task -= job.partTasks[part];
  const int64_t vectors = job.problem.parts[part].weights.layout().vectors(), tasks = job.partTasks[part];
  job.ops->linear(job.problem, part, shareStart(vectors, tasks, task), shareStart(vectors, tasks, task + 1), token,
                  std::min(token + job.taskTokens, job.problem.tokens));
}

int64_t partTasks(const WeightsView& weights, int64_t tokens) {
  const int64_t vectors = weights.layout().vectors();
  if (tokens > kFewTokens) return tasksOf(vectors, kTaskVectors);
  const int64_t wanted = std::max<int64_t>(kSharedTasks * threadCount(), tasksOf(vectors, kMostTaskVectors));
  const int64_t most = std::min(kMostTasks, wanted);
  return std::min({most, tasksOf(vectors, kSplitVectors), tasksOf(weights.bytes(), kTaskBytes)});
}

void prepareTask(void* context, int64_t item) {
  LinearJob& job = *static_cast<LinearJob*>(context);
  const LinearProblem& p = job.problem;
  float* row = threadScratch(Scratch::task, p.columns);
  if (!row) {
    job.outOfMemory = true;
    return;
  }
  const int64_t first = item * kTileTokens;
  job.ops->prepareActivations(p, first, std::min(first + kTileTokens, p.tokens), row);
}

// Places for the forms of x in the call's scratch; false when memory is short.
bool placeForms(LinearProblem& p, const OpTable& ops) {
  bool wanted[kActivationForms] = {};
  for (int64_t i = 0; i < p.partCount; ++i)
    wanted[static_cast<int>(ops.activationForm(p, p.parts[i].weights.dtype))] = true;
  const auto words = [&](Activations form) {
    const bool held = wanted[static_cast<int>(form)] && (form != Activations::rows || p.norm.weight);
    return held ? roundUp(ActivationLayout{form, p.tokens, p.columns}.words(), kLanes) : 0;
  };
  int64_t at[kActivationForms + 1] = {0};
  for (int i = 0; i < kActivationForms; ++i) at[i + 1] = at[i] + words(static_cast<Activations>(i));
  float* scratch = at[kActivationForms] > 0 ? threadScratch(Scratch::call, at[kActivationForms]) : nullptr;
  if (at[kActivationForms] > 0 && !scratch) return false;
  const auto placed = [&](Activations form) {
    const int i = static_cast<int>(form);
    return at[i + 1] > at[i] ? scratch + at[i] : nullptr;
  };
  p.forms = {p.norm.weight ? placed(Activations::rows) : const_cast<float*>(p.x), placed(Activations::pairs),
             placed(Activations::bytes), placed(Activations::digits), placed(Activations::tiles)};
  return true;
}

struct PackJob {
  const OpTable* ops;
  WeightsView weights;
  const void* weight;
  DType type;
};

void packTask(void* context, int64_t item) {
  const PackJob& job = *static_cast<PackJob*>(context);
  const int64_t vector = item * kPackVectors;
  job.ops->packWeights(job.weights, job.weight, job.type, vector,
                       std::min(vector + kPackVectors, job.weights.layout().vectors()));
}

struct GatherJob {
  const OpTable* ops;
  WeightsView weights;
  const int32_t* ids;
  float* out;
};

void gatherTask(void* context, int64_t item) {
  const GatherJob& job = *static_cast<GatherJob*>(context);
  job.ops->unpackRow(job.weights, job.ids[item], job.out + item * job.weights.columns);
}

}  // namespace

Status linear(const LinearProblem& problem) {
  LinearJob job = {opTable(), problem, {}, 0, 0, {false}};
  LinearProblem& p = job.problem;
  int64_t bytes = 0;
  for (int64_t i = 0; i < p.partCount; ++i) bytes += p.parts[i].weights.bytes();
  p.prefetch = prefetchFor(bytes);
  if (!placeForms(p, *job.ops)) return Status::outOfMemory;
  if (p.norm.weight || p.forms.pairs || p.forms.bytes || p.forms.digits || p.forms.tiles)
    parallelFor(tasksOf(p.tokens, kTileTokens), prepareTask, &job, nullptr);
  if (job.outOfMemory) return Status::outOfMemory;

  const int64_t parts = p.combine == Combine::gated ? 1 : p.partCount;
  int64_t multiplyAdds = 0;
  for (int64_t i = 0; i < parts; ++i) {
    const WeightsView& w = p.parts[i].weights;
    multiplyAdds += p.tokens * w.rows * w.columns;
    job.partTasks[i] = partTasks(w, p.tokens);
    job.featureTasks += job.partTasks[i];
  }
  if (multiplyAdds <= kInlineMultiplyAdds) {
    for (int64_t i = 0; i < parts; ++i) job.ops->linear(p, i, 0, p.parts[i].weights.layout().vectors(), 0, p.tokens);
    return Status::ok;
  }
  job.taskTokens = p.tokens > kFewTokens ? kTaskTokens : std::max<int64_t>(1, p.tokens);
  parallelFor(job.featureTasks * tasksOf(p.tokens, job.taskTokens), linearTask, &job, nullptr);
  return Status::ok;
}

void packWeights(const WeightsView& weights, const void* weight, DType type) {
  PackJob job = {opTable(), weights, weight, type};
  parallelFor(tasksOf(weights.layout().vectors(), kPackVectors), packTask, &job, nullptr);
}

void gatherRows(const WeightsView& weights, const int32_t* ids, int64_t count, float* out) {
  GatherJob job = {opTable(), weights, ids, out};
  parallelFor(count, gatherTask, &job, nullptr);
}

}  // namespace gqa
