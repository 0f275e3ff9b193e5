#include "mapping.h"

#include <cstring>
#include <string>

#include "../runtime/runtime.h"
#include "arguments.h"
#include "storage.h"

namespace gqa {
namespace {

// Where weights may begin: kernels load whole vectors.
constexpr int64_t kAlignment = 64;

// A size or offset of [0, 2^53); -1 of anything else.
int64_t wholeNumber(const Napi::Value& value) {
  constexpr double kLimit = 9007199254740992.0;
  if (!value.IsNumber()) return -1;
  const double number = value.As<Napi::Number>().DoubleValue();
  return number >= 0 && number < kLimit ? static_cast<int64_t>(number) : -1;
}

}  // namespace

Napi::Value mapFileCall(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::string path = info[0].ToString().Utf8Value();
  const FileMapping mapping = mapFile(path.c_str());
  if (mapping.base == nullptr) return Napi::String::New(env, mapping.error);
  Storage storage = {Storage::Kind::file, Pages::ofFile(mapping), {}, {}, 0};
  Napi::Object result = Napi::Object::New(env);
  // Pages that the system may take back at any time are no burden to the garbage collector.
  result.Set("handle", wrapStorage(env, storage, mapping.shared ? 0 : mapping.bytes));
  result.Set("bytes", static_cast<double>(mapping.bytes));
  result.Set("shared", mapping.shared);
  return result;
}

Napi::Value mappedWeightsCall(const Napi::CallbackInfo& info) {
  using namespace weights_slot;
  enum : int { kFile, kOffset };
  Arguments a(info);
  const Storage* file = a.storage(kFile, Storage::Kind::file);
  const int64_t offset = wholeNumber(info[kOffset]);
  WeightsView weights = {};
  weights.dtype = a.weightType(dtype);
  weights.rows = a.count(rows);
  weights.columns = a.count(columns);
  a.require(offset >= 0 && offset % kAlignment == 0, kOffset);
  a.require(weights.rows > 0 && weights.columns > 0, kFile);
  a.require(!isQuantised(weights.dtype) || weights.columns % kGroup == 0, kFile);
  if (!a.accepted()) return info.Env().Undefined();
  // In double, which cannot wrap around; less than half of a value's bytes in any layout would not fit either.
  const double left = static_cast<double>(file->pages->bytes()) - static_cast<double>(offset);
  const bool possible = a.number(rows) * a.number(columns) / 4 <= left;
  const int64_t size = possible ? weights.bytes() : 0;
  a.require(possible && static_cast<double>(size) <= left, kFile);
  if (!a.accepted()) return info.Env().Undefined();
  a.give(bytes, static_cast<double>(size));
  weights.base = file->pages->base() + offset;
  return wrapStorage(info.Env(), {Storage::Kind::weights, file->pages, {}, weights, 0}, 0);
}

void readWeightsCall(const Napi::CallbackInfo& info) {
  enum : int { kWeights, kTo, kFrom };
  Arguments a(info);
  const Storage* storage = a.storage(kWeights, Storage::Kind::weights);
  size_t length = 0;
  uint8_t* to = a.wholeArray<uint8_t>(kTo, &length);
  const int64_t from = wholeNumber(info[kFrom]);
  if (storage != nullptr && a.fits()) {
    const int64_t size = storage->weights.bytes();
    a.require(from >= 0 && from <= size && static_cast<int64_t>(length) <= size - from, kFrom);
  }
  if (a.accepted()) std::memcpy(to, storage->weights.base + from, length);
}

Napi::Value checksumWeightsCall(const Napi::CallbackInfo& info) {
  Arguments a(info);
  const Storage* storage = a.storage(0, Storage::Kind::weights);
  if (!a.accepted()) return info.Env().Undefined();
  return Napi::BigInt::New(info.Env(), checksum(storage->weights.base, storage->weights.bytes()));
}

}  // namespace gqa
