// attend, attendAsync and attendStep: build the problem from parameters and arrays, checked against their lengths.
#pragma once
#include "../runtime/runtime.h"
#include "node.h"

namespace gqa {

// Without rows there is nothing to write, and the other sizes, which then no array bounds, may be anything.
Status attendRows(const AttendProblem& problem, CancelFlag cancel);

napi_value attendCall(napi_env env, napi_callback_info info);
napi_value attendAsyncCall(napi_env env, napi_callback_info info);
napi_value attendStepCall(napi_env env, napi_callback_info info);

}  // namespace gqa
