// What one isolate's copy of the addon owns: its parameter block and its async calls.
#pragma once
#include <memory>

#include "async.h"
#include "node.h"

namespace gqa {

class Environment {
 public:
  // Puts `parameters` into exports and lives until the isolate ends.
  static Environment* create(Napi::Env env, Napi::Object exports);

  double* parameters() const { return parameters_; }
  AsyncCalls& asyncCalls(Napi::Env env);

 private:
  Napi::Reference<Napi::Float64Array> kept_;  // keeps the memory of parameters_
  double* parameters_ = nullptr;
  std::shared_ptr<AsyncCalls> asyncCalls_;
};

// Adds functions to the exports; each receives its environment as data.
class Exporter {
 public:
  Exporter(Napi::Env env, Napi::Object exports)
      : env_(env), exports_(exports), environment_(Environment::create(env, exports)) {}

  template <class Callback>
  void cold(const char* name, Callback callback) const {
    exports_.Set(name, Napi::Function::New(env_, callback, name, environment_));
  }
  void hot(const char* name, napi_callback callback) const;

 private:
  Napi::Env env_;
  Napi::Object exports_;
  Environment* environment_;
};

}  // namespace gqa
