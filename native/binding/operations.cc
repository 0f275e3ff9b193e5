#include "operations.h"

#include <vector>

#include "arguments.h"

namespace gqa {

// linear(x, norm, then weights, out and bias of each part); norm and biases may be null.
napi_value linearCall(napi_env env, napi_callback_info info) {
  using namespace linear_slot;
  enum : int { kX, kNorm, kFirstPart, kPartArguments = 3 };
  Arguments a(env, info);
  LinearProblem p = {};
  p.tokens = a.count(tokens);
  p.partCount = a.count(parts);
  p.combine = static_cast<Combine>(a.count(combine));
  p.fast = a.flag(fast);
  p.eps = a.single(eps);
  a.require(p.partCount >= 1 && p.partCount <= kMaxLinearParts && p.combine <= Combine::swiglu, kFirstPart);
  a.require(p.combine != Combine::swiglu || p.partCount == 2, kFirstPart);
  for (int64_t i = 0; a.fits() && i < p.partCount; i++) {
    const int first = kFirstPart + static_cast<int>(i) * kPartArguments;
    const Storage* storage = a.storage(first, Storage::Kind::weights);
    if (!storage) break;
    LinearPart& part = p.parts[i];
    part.weights = storage->weights;
    if (i == 0) p.columns = part.weights.columns;
    const bool gate = p.combine == Combine::swiglu;
    a.require(part.weights.columns == p.columns && (!gate || part.weights.rows == p.parts[0].weights.rows), first);
    const double rows = static_cast<double>(part.weights.rows);
    if (!gate || i == 0) part.out = a.array<float>(first + 1, a.number(tokens) * rows);
    if (a.present(first + 2)) part.bias = a.array<float>(first + 2, rows);
  }
  p.x = a.array<float>(kX, a.number(tokens) * static_cast<double>(p.columns));
  if (a.present(kNorm)) p.norm = a.array<float>(kNorm, static_cast<double>(p.columns));
  if (a.accepted() && linear(p) != Status::ok) a.report(status::outOfMemory);
  return nullptr;
}

napi_value gatherCall(napi_env env, napi_callback_info info) {
  using namespace gather_slot;
  enum : int { kWeights, kIds, kOut };
  Arguments a(env, info);
  const int64_t n = a.count(count);
  const int32_t* ids = a.array<int32_t>(kIds, a.number(count));
  const Storage* storage = a.storage(kWeights, Storage::Kind::weights);
  if (!a.accepted()) return nullptr;
  const WeightsView& weights = storage->weights;
  float* out = a.array<float>(kOut, a.number(count) * static_cast<double>(weights.columns));
  for (int64_t i = 0; a.fits() && i < n; i++) a.require(ids[i] >= 0 && ids[i] < weights.rows, kIds);
  if (a.accepted()) gatherRows(weights, ids, n, out);
  return nullptr;
}

napi_value rmsNormCall(napi_env env, napi_callback_info info) {
  using namespace rms_norm_slot;
  Arguments a(env, info);
  const int64_t rows = a.count(tokens), width = a.count(dim);
  const double elements = a.number(tokens) * a.number(dim);
  const float* x = a.array<float>(0, elements);
  const float* weight = a.array<float>(1, a.number(dim));
  float* out = a.array<float>(2, elements);
  if (a.accepted()) rmsNorm(x, weight, out, rows, width, a.single(eps));
  return nullptr;
}

napi_value ropeCall(napi_env env, napi_callback_info info) {
  using namespace rope_slot;
  Arguments a(env, info);
  RopeProblem p = {};
  p.tokens = a.count(tokens);
  p.heads = a.count(heads);
  p.headDim = a.count(headDim);
  p.rotaryDim = a.count(rotaryDim);
  p.interleaved = a.flag(interleaved);
  a.require(p.rotaryDim <= p.headDim && p.rotaryDim % 2 == 0, 0);
  const double angles = a.number(tokens) * a.number(rotaryDim) / 2;
  p.x = a.array<float>(0, a.number(tokens) * a.number(heads) * a.number(headDim));
  p.cos = a.array<float>(1, angles);
  p.sin = a.array<float>(2, angles);
  if (a.accepted()) rope(p);
  return nullptr;
}

napi_value swigluCall(napi_env env, napi_callback_info info) {
  using namespace count_slot;
  Arguments a(env, info);
  const int64_t n = a.count(count);
  const float* gate = a.array<float>(0, a.number(count));
  const float* up = a.array<float>(1, a.number(count));
  float* out = a.array<float>(2, a.number(count));
  if (a.accepted()) swiglu(gate, up, out, n);
  return nullptr;
}

napi_value addCall(napi_env env, napi_callback_info info) {
  using namespace count_slot;
  Arguments a(env, info);
  const int64_t n = a.count(count);
  float* x = a.array<float>(0, a.number(count));
  const float* y = a.array<float>(1, a.number(count));
  if (a.accepted()) add(x, y, n);
  return nullptr;
}

napi_value convertCall(napi_env env, napi_callback_info info) {
  using namespace count_slot;
  Arguments a(env, info);
  const int64_t n = a.count(count);
  const DType fromType = a.floatType(fromDtype), toType = a.floatType(toDtype);
  const void* from = a.floats(0, fromType, a.number(count));
  void* to = a.floats(1, toType, a.number(count));
  if (a.accepted()) convert(from, fromType, to, toType, n);
  return nullptr;
}

napi_value allBelowCall(napi_env env, napi_callback_info info) {
  using namespace count_slot;
  Arguments a(env, info);
  const int64_t n = a.count(count);
  const DType type = a.floatType(fromDtype);
  const void* data = a.floats(0, type, a.number(count));
  if (a.accepted()) a.give(holds, allBelow(data, type, n, a.single(limit)) ? 1 : 0);
  return nullptr;
}

// merge(outs[], lses[], out, lse): lists, so without the fixed positions of the others.
void mergeCall(const Napi::CallbackInfo& info) {
  using namespace merge_slot;
  Arguments a(info);
  const DType type = a.floatType(dtype);
  const int64_t rowCount = a.count(rows), width = a.count(valueDim);
  const double elements = a.number(rows) * a.number(valueDim);
  void* out = a.floats(2, type, elements);
  float* lse = a.array<float>(3, a.number(rows));

  const Napi::Array outList = info[0].As<Napi::Array>(), lseList = info[1].As<Napi::Array>();
  std::vector<const void*> outs;
  std::vector<const float*> lses;
  const auto holds = [](const Napi::TypedArray& array, napi_typedarray_type expected, double least) {
    return array.TypedArrayType() == expected && static_cast<double>(array.ElementLength()) >= least;
  };
  for (uint32_t i = 0; i < outList.Length(); i++) {
    const auto partOut = Napi::Value(outList[i]).As<Napi::TypedArray>();
    const auto partLse = Napi::Value(lseList[i]).As<Napi::TypedArray>();
    a.require(holds(partOut, type == DType::f32 ? napi_float32_array : napi_uint16_array, elements), 0);
    a.require(holds(partLse, napi_float32_array, a.number(rows)), 1);
    outs.push_back(static_cast<const char*>(partOut.ArrayBuffer().Data()) + partOut.ByteOffset());
    lses.push_back(
        reinterpret_cast<const float*>(static_cast<const char*>(partLse.ArrayBuffer().Data()) + partLse.ByteOffset()));
  }
  if (!a.accepted()) return;
  if (!merge(outs.data(), lses.data(), static_cast<int64_t>(outs.size()), type, out, lse, rowCount, width))
    a.report(status::outOfMemory);
}

}  // namespace gqa
