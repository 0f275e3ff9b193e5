#include "information.h"

#include <string>

#include "../runtime/runtime.h"
#include "../runtime/thread_limits.h"
#include "arguments.h"

namespace gqa {

Napi::Value informationCall(const Napi::CallbackInfo& info) {
  const OpTable* ops = opTable();
  const ThreadLimits& limits = threadLimits();
  const std::string error = ops == nullptr ? dispatchReason() : limits.valid ? "" : limits.reason;
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("isa", ops == nullptr ? "" : ops->isa);
  result.Set("threads", limits.threads);
  result.Set("reason", std::string(dispatchReason()) + "; threads " + threadReason());
  result.Set("error", error);
  return result;
}

Napi::Value threadsCall(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), threadCount()); }

void limitThreadsCall(const Napi::CallbackInfo& info) { limitThreads(info[0].ToNumber().Int32Value()); }

void probeReadCall(const Napi::CallbackInfo& info) {
  Arguments a(info);
  size_t length = 0;
  const uint8_t* data = a.wholeArray<uint8_t>(0, &length);
  if (a.accepted()) probeRead(data, static_cast<int64_t>(length));
}

Napi::Value probeFmaCall(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), probeFma(info[0].ToNumber().Int64Value()));
}

Napi::Value probeDotCall(const Napi::CallbackInfo& info) {
  const DotKind kind = static_cast<DotKind>(info[0].ToNumber().Int32Value());
  return Napi::Number::New(info.Env(), probeDot(kind, info[1].ToNumber().Int64Value()));
}

Napi::Value probeTilesCall(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), probeTiles(info[0].ToNumber().Int64Value()));
}

Napi::Value probeWakeCall(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), probeWake()); }

}  // namespace gqa
