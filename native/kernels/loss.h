// Cross-entropy, and the divergence from a teacher, of rows of logits; their gradient is written over the logits.
// Exponentials are f32, taken from the row's maximum; their sums are f32 over runs of 1,024, then float64.
#pragma once
#include <cmath>

namespace gqa {
namespace {

constexpr int64_t kLossRun = 1024;

// Largest of a row, of 1 element at least.
GQA_INLINE float largestLogit(const float* x, int64_t count) {
  const Vec lowest = splat(-kInfinity);
  Vec m = lowest;
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t n = lanesLeft(i, count);
    m = max(whereLane(0, n, loadFirst(x + i, n), lowest), m);
  }
  return reduceMax(m);
}

// e^(x - highest), 0 in lanes from n on.
GQA_INLINE Vec exponentials(Vec x, Vec highest, int64_t n) {
  return whereLane(0, n, exp2(mul(sub(x, highest), splat(kLog2e))), zero());
}

struct LossSums {
  double student, teacher;  // of exponentials
  double divergence;        // of the teacher's exponentials times how far its logits, from their maximum, lie above
};

// The sums of a row, whose logits become their exponentials.
GQA_INLINE LossSums sumRow(float* logits, float highest, const float* teacher, float teacherHighest, int64_t count) {
  LossSums sums = {0, 0, 0};
  const Vec top = splat(highest), teacherTop = splat(teacherHighest);
  for (int64_t first = 0; first < count; first += kLossRun) {
    const int64_t last = count - first < kLossRun ? count : first + kLossRun;
    Vec student = zero(), taught = zero(), divergence = zero();
    for (int64_t i = first; i < last; i += kLanes) {
      const int64_t n = lanesLeft(i, last);
      const Vec x = loadFirst(logits + i, n), e = exponentials(x, top, n);
      student = add(student, e);
      storeFirst(logits + i, n, e);
      if (!teacher) continue;
      const Vec y = loadFirst(teacher + i, n), f = exponentials(y, teacherTop, n);
      const Vec above = sub(sub(y, teacherTop), sub(x, top));
      taught = add(taught, f);
      divergence = add(divergence, whereLess(zero(), f, mul(f, above), zero()));  // of weight 0 it may be infinite
    }
    sums.student += double(reduceAdd(student));
    sums.teacher += double(reduceAdd(taught));
    sums.divergence += double(reduceAdd(divergence));
  }
  return sums;
}

GQA_INLINE void skipRow(const CrossEntropyProblem& p, int64_t row) {
  p.nll[row] = 0;
  if (p.kl) p.kl[row] = 0;
  for (int64_t i = 0; i < p.vocab; i += kLanes) storeFirst(p.logits + row * p.vocab + i, lanesLeft(i, p.vocab), zero());
}

// gradient = weight (p - teacherShare t - (1 - teacherShare) onehot(target))
GQA_INLINE void lossRow(const CrossEntropyProblem& p, int64_t row) {
  float* logits = p.logits + row * p.vocab;
  const float* teacher = p.teacher ? p.teacher + row * p.vocab : nullptr;
  const int64_t target = p.targets[row];
  const float highest = largestLogit(logits, p.vocab), teacherHighest = teacher ? largestLogit(teacher, p.vocab) : 0.f;
  const double below = double(highest) - double(logits[target]);
  const LossSums sums = sumRow(logits, highest, teacher, teacherHighest, p.vocab);
  p.nll[row] = float(std::log(sums.student) + below);
  if (teacher) p.kl[row] = float(sums.divergence / sums.teacher + std::log(sums.student) - std::log(sums.teacher));

  const bool taught = teacher && p.teacherShare != 0;
  const Vec scale = splat(float(double(p.weight) / sums.student));
  const Vec teacherScale = splat(taught ? float(-double(p.weight) * double(p.teacherShare) / sums.teacher) : 0.f);
  for (int64_t i = 0; i < p.vocab; i += kLanes) {
    const int64_t n = lanesLeft(i, p.vocab);
    Vec g = mul(loadFirst(logits + i, n), scale);
    if (taught) g = fma(exponentials(loadFirst(teacher + i, n), splat(teacherHighest), n), teacherScale, g);
    storeFirst(logits + i, n, g);
  }
  logits[target] -= p.weight * (1 - p.teacherShare);
}

void crossEntropyRows(const CrossEntropyProblem& p, int64_t firstRow, int64_t lastRow) {
  for (int64_t row = firstRow; row < lastRow; ++row) {
    if (p.targets[row] < 0)
      skipRow(p, row);
    else
      lossRow(p, row);
  }
}

}  // namespace
}  // namespace gqa
