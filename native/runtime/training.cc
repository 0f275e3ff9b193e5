// The operations of training over threads. How work is cut depends on shapes alone, and what several tasks give one
// gradient is added in the order of the tasks, so that bits do not depend on the threads.
#include "training.h"

#include <algorithm>
#include <atomic>
#include <limits>

namespace gqa {
namespace {

// Elements of one task of the elementwise operations.
constexpr int64_t kTaskElements = 1 << 15;
// A transposition's task: a band of rows and columns that fits in L1.
constexpr int64_t kTransposeRows = 64, kTransposeColumns = 128;

int64_t tasksOf(int64_t n, int64_t size) { return (n + size - 1) / size; }

// A problem cut into tasks of `size` units of `total`.
template <class Problem>
struct Job {
  const TrainingTable* ops;
  const Problem& problem;
  int64_t total, size;
  float* partials = nullptr;

  int64_t first(int64_t item) const { return item * size; }
  int64_t last(int64_t item) const { return std::min(total, (item + 1) * size); }
};

template <class Problem>
void each(Job<Problem>& job, void (*task)(void*, int64_t)) {
  parallelFor(tasksOf(job.total, job.size), task, &job, nullptr);
}

template <class Problem>
const Job<Problem>& jobOf(void* context) {
  return *static_cast<const Job<Problem>*>(context);
}

// Units of `elements` each that make a task.
int64_t unitsOf(int64_t elements) { return std::max<int64_t>(1, kTaskElements / std::max<int64_t>(1, elements)); }

struct TransposeProblem {
  const float* x;
  float* out;
  int64_t rows, columns;
};

void transposeTask(void* context, int64_t item) {
  const auto& job = jobOf<TransposeProblem>(context);
  const TransposeProblem& p = job.problem;
  const int64_t across = tasksOf(p.columns, kTransposeColumns);
  const int64_t row = item / across * kTransposeRows, column = item % across * kTransposeColumns;
  job.ops->transpose(p.x, p.out, p.rows, p.columns, row, std::min(p.rows, row + kTransposeRows), column,
                     std::min(p.columns, column + kTransposeColumns));
}

void rmsNormBackwardTask(void* context, int64_t item) {
  const auto& job = jobOf<RmsNormBackwardProblem>(context);
  float* gradWeight = job.partials == nullptr ? nullptr : job.partials + item * job.problem.dim;
  job.ops->rmsNormBackward(job.problem, job.first(item), job.last(item), gradWeight);
}

struct SwigluBackwardProblem {
  const float* gate;
  const float* up;
  const float* gradOut;
  float* gradGate;
  float* gradUp;
};

void swigluBackwardTask(void* context, int64_t item) {
  const auto& job = jobOf<SwigluBackwardProblem>(context);
  const SwigluBackwardProblem& p = job.problem;
  const int64_t at = job.first(item);
  job.ops->swigluBackward(p.gate + at, p.up + at, p.gradOut + at, p.gradGate + at, p.gradUp + at, job.last(item) - at);
}

void crossEntropyTask(void* context, int64_t item) {
  const auto& job = jobOf<CrossEntropyProblem>(context);
  job.ops->crossEntropy(job.problem, job.first(item), job.last(item));
}

void adamWTask(void* context, int64_t item) {
  const auto& job = jobOf<AdamWProblem>(context);
  job.ops->adamW(job.problem, job.first(item), job.last(item));
}

void sumSquaresTask(void* context, int64_t item) {
  const auto& job = jobOf<const float*>(context);
  const int64_t at = job.first(item);
  reinterpret_cast<double*>(job.partials)[item] = job.ops->sumSquares(job.problem + at, job.last(item) - at);
}

}  // namespace

void transpose(const float* x, float* out, int64_t rows, int64_t columns) {
  const TransposeProblem problem = {x, out, rows, columns};
  Job<TransposeProblem> job = {opTable()->training, problem,
                               tasksOf(rows, kTransposeRows) * tasksOf(columns, kTransposeColumns), 1};
  each(job, transposeTask);
}

Status rmsNormBackward(const RmsNormBackwardProblem& problem, int64_t tokens, float* gradWeight) {
  Job<RmsNormBackwardProblem> job = {opTable()->training, problem, tokens, unitsOf(problem.dim)};
  const int64_t tasks = tasksOf(tokens, job.size);
  if (gradWeight != nullptr) {
    job.partials = threadScratch(Scratch::call, tasks * problem.dim);
    if (job.partials == nullptr) return Status::outOfMemory;
  }
  each(job, rmsNormBackwardTask);
  for (int64_t i = 0; gradWeight != nullptr && i < tasks; i++)
    opTable()->add(gradWeight, job.partials + i * problem.dim, problem.dim);
  return Status::ok;
}

void swigluBackward(const float* gate, const float* up, const float* gradOut, float* gradGate, float* gradUp,
                    int64_t count) {
  const SwigluBackwardProblem problem = {gate, up, gradOut, gradGate, gradUp};
  Job<SwigluBackwardProblem> job = {opTable()->training, problem, count, kTaskElements};
  each(job, swigluBackwardTask);
}

void crossEntropy(const CrossEntropyProblem& problem) {
  Job<CrossEntropyProblem> job = {opTable()->training, problem, problem.rows, unitsOf(problem.vocab)};
  each(job, crossEntropyTask);
}

void adamW(const AdamWProblem& problem) {
  Job<AdamWProblem> job = {opTable()->training, problem, problem.count, kTaskElements};
  each(job, adamWTask);
}

Status sumSquares(const float* x, int64_t count, double* sum) {
  Job<const float*> job = {opTable()->training, x, count, kTaskElements};
  const int64_t tasks = tasksOf(count, job.size);
  job.partials = threadScratch(Scratch::call, 2 * tasks);
  if (job.partials == nullptr) return Status::outOfMemory;
  each(job, sumSquaresTask);
  *sum = 0;
  for (int64_t i = 0; i < tasks; i++) *sum += reinterpret_cast<const double*>(job.partials)[i];
  return Status::ok;
}

}  // namespace gqa
