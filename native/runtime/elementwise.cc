// The small operations of a forward pass, split over threads only where there is enough to do.
#include <algorithm>

#include "runtime.h"

namespace gqa {
namespace {

// Elements of one task, and the least that is worth waking a thread for.
constexpr int64_t kTaskElements = 1 << 15;

struct RowsJob {
  const OpTable* ops;
  const void* a;
  const void* b;
  void* out;
  DType from, to;
  int64_t total, perTask, dim;
  ActivationFunction activation;
};

struct NormJob {
  RowsJob rows;
  Norm norm;
};

void normTask(void* context, int64_t item) {
  const NormJob& n = *static_cast<NormJob*>(context);
  const RowsJob& j = n.rows;
  const int64_t first = item * j.perTask;
  j.ops->normalise(static_cast<const float*>(j.a) + first * j.dim, n.norm, static_cast<float*>(j.out) + first * j.dim,
                   std::min(j.perTask, j.total - first), j.dim);
}

void activateTask(void* context, int64_t item) {
  const RowsJob& j = *static_cast<RowsJob*>(context);
  const int64_t first = item * j.perTask;
  const float* second = static_cast<const float*>(j.b);
  j.ops->activate(j.activation, static_cast<const float*>(j.a) + first, second == nullptr ? nullptr : second + first,
                  static_cast<float*>(j.out) + first, std::min(j.perTask, j.total - first));
}

void addTask(void* context, int64_t item) {
  const RowsJob& j = *static_cast<RowsJob*>(context);
  const int64_t first = item * j.perTask;
  j.ops->add(static_cast<float*>(j.out) + first, static_cast<const float*>(j.b) + first,
             std::min(j.perTask, j.total - first));
}

void convertTask(void* context, int64_t item) {
  const RowsJob& j = *static_cast<RowsJob*>(context);
  const int64_t first = item * j.perTask;
  j.ops->convert(static_cast<const char*>(j.a) + first * elementBytes(j.from), j.from,
                 static_cast<char*>(j.out) + first * elementBytes(j.to), j.to, std::min(j.perTask, j.total - first));
}

struct RopeJob {
  const OpTable* ops;
  const RopeProblem* problem;
  int64_t perTask;
};

void ropeTask(void* context, int64_t item) {
  const RopeJob& j = *static_cast<RopeJob*>(context);
  const int64_t first = item * j.perTask;
  j.ops->rope(*j.problem, first, std::min(first + j.perTask, j.problem->tokens));
}

int64_t splitRows(RowsJob& job, int64_t elementsPerUnit) {
  job.perTask = std::max<int64_t>(1, kTaskElements / std::max<int64_t>(elementsPerUnit, 1));
  return (job.total + job.perTask - 1) / job.perTask;
}

void eachElement(RowsJob& job, void (*task)(void*, int64_t)) { parallelFor(splitRows(job, 1), task, &job, nullptr); }

}  // namespace

void normalise(const float* x, const Norm& norm, float* out, int64_t tokens, int64_t dim) {
  NormJob job = {{opTable(), x, nullptr, out, DType::f32, DType::f32, tokens, 0, dim, {}}, norm};
  parallelFor(splitRows(job.rows, dim), normTask, &job, nullptr);
}

void activate(ActivationFunction f, const float* x, const float* second, float* out, int64_t count) {
  RowsJob job = {opTable(), x, second, out, DType::f32, DType::f32, count, 0, 1, f};
  eachElement(job, activateTask);
}

void add(float* x, const float* y, int64_t count) {
  RowsJob job = {opTable(), nullptr, y, x, DType::f32, DType::f32, count, 0, 1, {}};
  eachElement(job, addTask);
}

void convert(const void* from, DType fromType, void* to, DType toType, int64_t count) {
  RowsJob job = {opTable(), from, nullptr, to, fromType, toType, count, 0, 1, {}};
  eachElement(job, convertTask);
}

bool allBelow(const void* data, DType type, int64_t count, float limit) {
  return opTable()->allBelow(data, type, count, limit);
}

void rope(const RopeProblem& problem) {
  RopeJob job = {opTable(), &problem,
                 std::max<int64_t>(1, kTaskElements / std::max<int64_t>(problem.heads * problem.rotaryDim, 1))};
  parallelFor((problem.tokens + job.perTask - 1) / job.perTask, ropeTask, &job, nullptr);
}

}  // namespace gqa
