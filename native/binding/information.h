// What runs and why, the thread limit, and the machine probes.
#pragma once
#include "node.h"

namespace gqa {

Napi::Value informationCall(const Napi::CallbackInfo& info);
Napi::Value threadsCall(const Napi::CallbackInfo& info);
void limitThreadsCall(const Napi::CallbackInfo& info);
void probeReadCall(const Napi::CallbackInfo& info);
Napi::Value probeFmaCall(const Napi::CallbackInfo& info);
Napi::Value probeDotCall(const Napi::CallbackInfo& info);
Napi::Value probeTilesCall(const Napi::CallbackInfo& info);
Napi::Value probeWakeCall(const Napi::CallbackInfo& info);

}  // namespace gqa
