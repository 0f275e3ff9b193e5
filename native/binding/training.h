// The calls of training: each reads its arguments, checks lengths and runs one operation of runtime/training.h.
#pragma once
#include "node.h"

namespace gqa {

napi_value attendBackwardCall(napi_env env, napi_callback_info info);
napi_value transposeCall(napi_env env, napi_callback_info info);
napi_value rmsNormBackwardCall(napi_env env, napi_callback_info info);
napi_value swigluBackwardCall(napi_env env, napi_callback_info info);
napi_value crossEntropyCall(napi_env env, napi_callback_info info);
napi_value adamWCall(napi_env env, napi_callback_info info);
napi_value sumSquaresCall(napi_env env, napi_callback_info info);

}  // namespace gqa
