// What moves in and between arenas.
#pragma once
#include "node.h"

namespace gqa {

napi_value storeCall(napi_env env, napi_callback_info info);
napi_value copyBlockCall(napi_env env, napi_callback_info info);
napi_value moveTokensCall(napi_env env, napi_callback_info info);
napi_value readBlockCall(napi_env env, napi_callback_info info);
napi_value writeBlockCall(napi_env env, napi_callback_info info);

}  // namespace gqa
