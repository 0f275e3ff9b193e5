#include "operations.h"

#include <vector>

#include "arguments.h"

namespace gqa {

namespace {

// What becomes of products, and by which function, share a slot.
constexpr int64_t kCombines = 4;

void readCombine(Arguments& a, LinearProblem& p, int position) {
  const int64_t code = a.count(linear_slot::combine), function = code / kCombines;
  p.combine = static_cast<Combine>(code % kCombines);
  p.activation = static_cast<ActivationFunction>(function);
  a.require(function <= static_cast<int64_t>(ActivationFunction::swigluOai), position);
  a.require(p.combine != Combine::gated || p.partCount == 2, position);
  a.require(p.combine == Combine::gated || p.activation != ActivationFunction::swigluOai, position);
}

}  // namespace

// linear(x, norm, then weights, out and bias of each of three parts, then the norm's bias); norm and biases may be
// null.
napi_value linearCall(napi_env env, napi_callback_info info) {
  using namespace linear_slot;
  enum : int { kX, kNorm, kFirstPart, kPartArguments = 3, kNormBias = kFirstPart + kPartArguments * kMaxLinearParts };
  Arguments a(env, info);
  LinearProblem p = {};
  const int64_t bits = a.count(flags);
  p.tokens = a.count(tokens);
  p.partCount = a.count(parts);
  p.fast = (bits & linear_flag::fast) != 0;
  a.require(p.partCount >= 1 && p.partCount <= kMaxLinearParts, kFirstPart);
  readCombine(a, p, kFirstPart);
  for (int64_t i = 0; a.fits() && i < p.partCount; i++) {
    const int first = kFirstPart + static_cast<int>(i) * kPartArguments;
    const Storage* storage = a.storage(first, Storage::Kind::weights);
    if (!storage) break;
    LinearPart& part = p.parts[i];
    part.weights = storage->weights;
    if (i == 0) p.columns = part.weights.columns;
    const bool gate = p.combine == Combine::gated;
    a.require(part.weights.columns == p.columns && (!gate || part.weights.rows == p.parts[0].weights.rows), first);
    const double rows = static_cast<double>(part.weights.rows);
    if (!gate || i == 0) part.out = a.array<float>(first + 1, a.number(tokens) * rows);
    if (a.present(first + 2)) part.bias = a.array<float>(first + 2, rows);
  }
  const double columns = static_cast<double>(p.columns);
  p.x = a.array<float>(kX, a.number(tokens) * columns);
  p.norm = {(bits & linear_flag::layerNorm) != 0 ? NormKind::layer : NormKind::rms, nullptr, nullptr, a.single(eps)};
  if (a.present(kNorm)) p.norm.weight = a.array<float>(kNorm, columns);
  if (a.present(kNormBias)) p.norm.bias = a.array<float>(kNormBias, columns);
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

namespace {

// x, weight, out, and where it may have one, a bias or null.
void normCall(Arguments& a, NormKind kind) {
  using namespace norm_slot;
  const int64_t rows = a.count(tokens), width = a.count(dim);
  const double elements = a.number(tokens) * a.number(dim);
  const float* x = a.array<float>(0, elements);
  Norm norm = {kind, a.array<float>(1, a.number(dim)), nullptr, a.single(eps)};
  float* out = a.array<float>(2, elements);
  if (kind == NormKind::layer && a.present(3)) norm.bias = a.array<float>(3, a.number(dim));
  if (a.accepted()) normalise(x, norm, out, rows, width);
}

}  // namespace

napi_value rmsNormCall(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  normCall(a, NormKind::rms);
  return nullptr;
}

napi_value layerNormCall(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  normCall(a, NormKind::layer);
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

// activate(x, second or null, out)
napi_value activateCall(napi_env env, napi_callback_info info) {
  using namespace activate_slot;
  Arguments a(env, info);
  const int64_t n = a.count(count), f = a.count(function);
  const auto activation = static_cast<ActivationFunction>(f);
  const float* x = a.array<float>(0, a.number(count));
  const float* second = a.present(1) ? a.array<float>(1, a.number(count)) : nullptr;
  float* out = a.array<float>(2, a.number(count));
  a.require(f <= static_cast<int64_t>(ActivationFunction::swigluOai), 0);
  a.require(second != nullptr || activation != ActivationFunction::swigluOai, 1);
  if (a.accepted()) activate(activation, x, second, out, n);
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
