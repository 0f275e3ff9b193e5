// The calls that are neither attention nor about blocks: each reads its arguments, checks lengths and runs one
// operation of runtime.h.
#pragma once
#include "node.h"

namespace gqa {

napi_value linearCall(napi_env env, napi_callback_info info);
napi_value gatherCall(napi_env env, napi_callback_info info);
napi_value rmsNormCall(napi_env env, napi_callback_info info);
napi_value layerNormCall(napi_env env, napi_callback_info info);
napi_value ropeCall(napi_env env, napi_callback_info info);
napi_value activateCall(napi_env env, napi_callback_info info);
napi_value addCall(napi_env env, napi_callback_info info);
napi_value convertCall(napi_env env, napi_callback_info info);
napi_value allBelowCall(napi_env env, napi_callback_info info);

void mergeCall(const Napi::CallbackInfo& info);

}  // namespace gqa
