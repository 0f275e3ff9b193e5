#include "async.h"

#include "attend.h"

namespace gqa {

std::shared_ptr<AsyncCalls> AsyncCalls::create(Napi::Env env) {
  auto calls = std::make_shared<AsyncCalls>();
  calls->completion_ = Completion::New(env, "gqa.attendAsync", 0, 1, calls.get());
  calls->completion_.Unref(env);
  // Hooks run in reverse: this one before that of the thread-safe function. It keeps `calls` alive until then.
  env.AddCleanupHook(
      [](std::shared_ptr<AsyncCalls>* held) {
        (*held)->close();
        delete held;
      },
      new std::shared_ptr<AsyncCalls>(calls));
  return calls;
}

Napi::Value AsyncCalls::start(Napi::Env env, std::unique_ptr<AsyncCall> call) {
  const Napi::Value promise = call->promise.Promise();
  call->owner = shared_from_this();
  if (unsettled_++ == 0) completion_.Ref(env);
  runDetached(run, call.release());
  return promise;
}

void AsyncCalls::run(void* context) {
  AsyncCall* call = static_cast<AsyncCall*>(context);
  const std::shared_ptr<AsyncCalls> owner = call->owner;
  if (!owner->begin(call)) {
    delete call;  // its reference and its promise have gone with the isolate
    return;
  }
  // Small problems do not look at the flag, so one that is cancelled by now must not begin.
  call->status = call->cancel->load() != 0 ? Status::cancelled : attendRows(call->problem, call->cancel);
  owner->finish(call);
}

bool AsyncCalls::begin(AsyncCall* call) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (closed_) return false;
  running_.insert(call);
  return true;
}

void AsyncCalls::finish(AsyncCall* call) {
  std::lock_guard<std::mutex> lock(mutex_);
  running_.erase(call);
  if (!closed_ && completion_.NonBlockingCall(call) == napi_ok) return;
  delete call;
  idle_.notify_all();
}

void AsyncCalls::close() {
  std::unique_lock<std::mutex> lock(mutex_);
  closed_ = true;
  for (AsyncCall* call : running_) call->cancel->store(1);
  idle_.wait(lock, [this] { return running_.empty(); });
}

// On the isolate's thread. Without an environment the isolate is ending, and nobody waits for the promise.
void AsyncCalls::settle(Napi::Env env, Napi::Function, AsyncCalls* owner, AsyncCall* call) {
  const std::unique_ptr<AsyncCall> settled(call);
  if (static_cast<napi_env>(env) == nullptr) return;
  napi_delete_reference(env, call->arrays);
  if (--owner->unsettled_ == 0) owner->completion_.Unref(env);
  try {
    call->promise.Resolve(Napi::Number::New(env, static_cast<int>(call->status)));
  } catch (const Napi::Error&) {
    // A worker that is going down runs no more JavaScript, and nobody waits for the promise.
  }
}

}  // namespace gqa
