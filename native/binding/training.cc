#include "training.h"

#include <algorithm>

#include "../runtime/training.h"
#include "arguments.h"
#include "attend_arguments.h"

namespace gqa {

// attendBackward(q, k, v, out, lse, gradOut, gradQ, gradK, gradV); numbers in the slots of attend.
napi_value attendBackwardCall(napi_env env, napi_callback_info info) {
  using namespace attend_slot;
  enum : int { kQ, kK, kV, kOut, kLse, kGradOut, kGradQ, kGradK, kGradV };
  Arguments a(env, info);
  AttendBackwardProblem b = {};
  AttendProblem& p = b.forward;
  p.batch = a.count(batch);
  p.queryTokens = a.count(queryTokens);
  p.keyTokens = a.count(keyTokens);
  p.heads = a.count(heads);
  p.kvHeads = a.count(kvHeads);
  p.headDim = a.count(headDim);
  p.valueDim = a.count(valueDim);
  p.causal = (a.count(flags) & attend_flag::causal) != 0;
  p.window = a.countOrNone(window);
  p.sinkTokens = a.count(sinkTokens);
  p.scale = a.single(scale);
  p.softcap = a.single(softcap);
  a.require(p.kvHeads > 0 && p.heads % std::max<int64_t>(p.kvHeads, 1) == 0, kQ);

  const double rows = product(p.batch, p.queryTokens, p.heads, 1), keys = product(p.batch, p.keyTokens, p.kvHeads, 1);
  const double dims = a.number(headDim), valueDims = a.number(valueDim);
  p.q = a.array<float>(kQ, rows * dims);
  p.k = a.array<float>(kK, keys * dims);
  p.v = a.array<float>(kV, keys * valueDims);
  p.out = a.array<float>(kOut, rows * valueDims);
  p.lse = a.array<float>(kLse, rows);
  b.gradOut = a.array<float>(kGradOut, rows * valueDims);
  b.gradQ = a.array<float>(kGradQ, rows * dims);
  b.gradK = a.array<float>(kGradK, keys * dims);
  b.gradV = a.array<float>(kGradV, keys * valueDims);
  if (a.accepted()) a.report(static_cast<int>(attendBackward(b)));
  return nullptr;
}

napi_value transposeCall(napi_env env, napi_callback_info info) {
  using namespace transpose_slot;
  Arguments a(env, info);
  const int64_t height = a.count(rows), width = a.count(columns);
  const double elements = a.number(rows) * a.number(columns);
  const float* x = a.array<float>(0, elements);
  float* out = a.array<float>(1, elements);
  if (a.accepted()) transpose(x, out, height, width);
  return nullptr;
}

// rmsNormBackward(x, weight, gradOut, gradX, gradWeight or null)
napi_value rmsNormBackwardCall(napi_env env, napi_callback_info info) {
  using namespace norm_slot;
  enum : int { kX, kWeight, kGradOut, kGradX, kGradWeight };
  Arguments a(env, info);
  const int64_t rows = a.count(tokens), width = a.count(dim);
  const double elements = a.number(tokens) * a.number(dim);
  const float* x = a.array<float>(kX, elements);
  const float* weight = a.array<float>(kWeight, a.number(dim));
  const float* gradOut = a.array<float>(kGradOut, elements);
  float* gradX = a.array<float>(kGradX, elements);
  float* gradWeight = a.present(kGradWeight) ? a.array<float>(kGradWeight, a.number(dim)) : nullptr;
  if (a.accepted())
    a.report(static_cast<int>(rmsNormBackward({x, weight, gradOut, gradX, width, a.single(eps)}, rows, gradWeight)));
  return nullptr;
}

// swigluBackward(gate, up, gradOut, gradGate, gradUp)
napi_value swigluBackwardCall(napi_env env, napi_callback_info info) {
  using namespace count_slot;
  Arguments a(env, info);
  const int64_t n = a.count(count);
  const float* gate = a.array<float>(0, a.number(count));
  const float* up = a.array<float>(1, a.number(count));
  const float* gradOut = a.array<float>(2, a.number(count));
  float* gradGate = a.array<float>(3, a.number(count));
  float* gradUp = a.array<float>(4, a.number(count));
  if (a.accepted()) swigluBackward(gate, up, gradOut, gradGate, gradUp, n);
  return nullptr;
}

// crossEntropy(logits, teacher or null, targets, nll, kl or null)
napi_value crossEntropyCall(napi_env env, napi_callback_info info) {
  using namespace cross_entropy_slot;
  enum : int { kLogits, kTeacher, kTargets, kNll, kKl };
  Arguments a(env, info);
  CrossEntropyProblem p = {};
  p.rows = a.count(rows);
  p.vocab = a.count(vocab);
  p.teacherShare = a.single(teacherShare);
  p.weight = a.single(weight);
  const double elements = a.number(rows) * a.number(vocab);
  p.logits = a.array<float>(kLogits, elements);
  p.targets = a.array<int32_t>(kTargets, a.number(rows));
  p.nll = a.array<float>(kNll, a.number(rows));
  if (a.present(kTeacher)) {
    p.teacher = a.array<float>(kTeacher, elements);
    p.kl = a.array<float>(kKl, a.number(rows));
  }
  for (int64_t i = 0; a.fits() && i < p.rows; i++) a.require(p.targets[i] < p.vocab, kTargets);
  if (a.accepted()) crossEntropy(p);
  return nullptr;
}

// adamW(weight, gradient, m, v)
napi_value adamWCall(napi_env env, napi_callback_info info) {
  using namespace adam_w_slot;
  Arguments a(env, info);
  AdamWProblem p = {};
  p.count = a.count(count);
  p.weight = a.array<float>(0, a.number(count));
  p.gradient = a.array<float>(1, a.number(count));
  p.m = a.array<float>(2, a.number(count));
  p.v = a.array<float>(3, a.number(count));
  p.gradientScale = a.number(gradientScale);
  p.rate = a.number(rate);
  p.beta1 = a.number(beta1);
  p.beta2 = a.number(beta2);
  p.eps = a.number(eps);
  p.decay = a.number(decay);
  p.correction1 = a.number(correction1);
  p.correction2 = a.number(correction2);
  if (a.accepted()) adamW(p);
  return nullptr;
}

napi_value sumSquaresCall(napi_env env, napi_callback_info info) {
  using namespace sum_slot;
  Arguments a(env, info);
  const int64_t n = a.count(count);
  const float* x = a.array<float>(0, a.number(count));
  if (!a.accepted()) return nullptr;
  double total = 0;
  a.report(static_cast<int>(sumSquares(x, n, &total)));
  a.give(sum, total);
  return nullptr;
}

}  // namespace gqa
