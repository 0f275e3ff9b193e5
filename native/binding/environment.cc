#include "environment.h"

#include "parameters.h"

namespace gqa {

Environment* Environment::create(Napi::Env env, Napi::Object exports) {
  Environment* environment = new Environment;
  env.SetInstanceData(environment);
  Napi::Float64Array parameters = Napi::Float64Array::New(env, kParameterCount);
  environment->kept_ = Napi::Persistent(parameters);
  environment->parameters_ = parameters.Data();
  exports.Set("parameters", parameters);
  exports.Set("parameterVersion", kParameterVersion);
  return environment;
}

AsyncCalls& Environment::asyncCalls(Napi::Env env) {
  if (!asyncCalls_) asyncCalls_ = AsyncCalls::create(env);
  return *asyncCalls_;
}

void Exporter::hot(const char* name, napi_callback callback) const {
  napi_value function;
  NAPI_THROW_IF_FAILED_VOID(env_,
                            napi_create_function(env_, name, NAPI_AUTO_LENGTH, callback, environment_, &function));
  exports_.Set(name, function);
}

}  // namespace gqa
