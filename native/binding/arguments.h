// The arguments of one hot call: numbers from the parameter block, arrays and handles by position. Whatever does not
// fit is noted, and the call does nothing but report it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <limits>

#include "../runtime/runtime.h"
#include "environment.h"
#include "node.h"
#include "parameters.h"
#include "storage.h"

namespace gqa {

template <class T>
struct ArrayType;
template <>
struct ArrayType<float> {
  static constexpr napi_typedarray_type value = napi_float32_array;
};
template <>
struct ArrayType<double> {
  static constexpr napi_typedarray_type value = napi_float64_array;
};
template <>
struct ArrayType<int32_t> {
  static constexpr napi_typedarray_type value = napi_int32_array;
};
template <>
struct ArrayType<uint8_t> {
  static constexpr napi_typedarray_type value = napi_uint8_array;
};

class Arguments {
 public:
  static constexpr size_t kMost = 14;

  Arguments(napi_env env, napi_callback_info info) : env_(env) {
    size_t count = kMost;
    void* data = nullptr;
    napi_get_cb_info(env, info, &count, values_, nullptr, &data);  // absent ones are undefined
    environment_ = static_cast<Environment*>(data);
    parameters_ = environment_->parameters();
  }

  // Of a cold call.
  explicit Arguments(const Napi::CallbackInfo& info)
      : env_(info.Env()),
        environment_(static_cast<Environment*>(info.Data())),
        parameters_(environment_->parameters()) {
    for (size_t i = 0; i < kMost; i++) values_[i] = info[i];
  }

  Environment& environment() const { return *environment_; }
  napi_value value(int position) const { return values_[position]; }
  double number(int slot) const { return parameters_[slot]; }
  float single(int slot) const { return static_cast<float>(parameters_[slot]); }
  bool flag(int slot) const { return parameters_[slot] != 0; }
  void give(int slot, double value) { parameters_[slot] = value; }

  // A size, a position or a stride: an integer of [0, 2^53).
  int64_t count(int slot) {
    constexpr double kLimit = 9007199254740992.0;
    const double number = parameters_[slot];
    if (number >= 0 && number < kLimit) return static_cast<int64_t>(number);
    refuse(status::inconsistent, 0);
    return 0;
  }

  // The same, or Infinity.
  int64_t countOrNone(int slot) {
    if (parameters_[slot] == std::numeric_limits<double>::infinity()) return std::numeric_limits<int64_t>::max();
    return count(slot);
  }

  DType floatType(int slot) {
    const int64_t code = count(slot);
    if (code > static_cast<int64_t>(DType::bf16)) refuse(status::inconsistent, 0);
    return static_cast<DType>(code);
  }

  // Of floats, or one that weights alone have.
  DType weightType(int slot) {
    const DType type = static_cast<DType>(count(slot));
    if (!isQuantised(type)) return floatType(slot);
    return type;
  }

  DType cacheType(int slot) {
    const int64_t code = count(slot);
    if (code == static_cast<int64_t>(DType::q8_0) || code == static_cast<int64_t>(DType::q4_1))
      return static_cast<DType>(code);
    return floatType(slot);
  }

  // Typed arrays of `elements` at least; a product of counts in double cannot wrap around.
  template <class T>
  T* array(int position, double elements) {
    return static_cast<T*>(memory(position, ArrayType<T>::value, elements));
  }
  void* floats(int position, DType type, double elements) {
    return memory(position, type == DType::f32 ? napi_float32_array : napi_uint16_array, elements);
  }
  // For lists whose length says something too.
  template <class T>
  T* wholeArray(int position, size_t* length) {
    return static_cast<T*>(memory(position, ArrayType<T>::value, 0, length));
  }

  // An arena or weights that have not been released.
  Storage* storage(int position, Storage::Kind kind) {
    void* data = nullptr;
    if (napi_get_value_external(env_, values_[position], &data) == napi_ok) {
      Storage* storage = static_cast<Storage*>(data);
      if (storage->kind == kind && storage->pages) return storage;
    }
    refuse(status::inconsistent, position);
    return nullptr;
  }

  void require(bool condition, int position) {
    if (!condition) refuse(status::inconsistent, position);
  }
  void refuse(int status, int position) {
    if (status_ != status::ok) return;
    status_ = status;
    parameters_[result::argument] = position;
  }

  // Neither null nor undefined.
  bool present(int position) const {
    napi_valuetype type = napi_undefined;
    napi_typeof(env_, values_[position], &type);
    return type != napi_undefined && type != napi_null;
  }
  // Nothing was refused so far.
  bool fits() const { return status_ == status::ok; }

  // Leaves the status for the caller; false if the call must not run.
  bool accepted() {
    parameters_[result::status] = status_;
    return status_ == status::ok;
  }
  void report(int status) { parameters_[result::status] = status; }

 private:
  void* memory(int position, napi_typedarray_type expected, double elements, size_t* length = nullptr) {
    napi_typedarray_type type;
    size_t held = 0;
    void* data = nullptr;
    if (napi_get_typedarray_info(env_, values_[position], &type, &held, &data, nullptr, nullptr) != napi_ok ||
        type != expected) {
      refuse(status::inconsistent, position);
      return nullptr;
    }
    if (static_cast<double>(held) < elements) refuse(status::tooSmall, position);
    if (length != nullptr) *length = held;
    // An array of no elements may have no address, which kernels would take for an absent one.
    alignas(64) static char empty[64];
    return data != nullptr ? data : empty;
  }

  napi_env env_;
  Environment* environment_;
  double* parameters_;
  int status_ = status::ok;
  napi_value values_[kMost];
};

}  // namespace gqa
