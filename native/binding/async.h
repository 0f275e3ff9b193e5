// Attention off the event loop: each call runs on a thread of the pool and settles its promise in the isolate.
//
// The isolate may end at any time. Its cleanup hook then cancels what runs and waits for it, for until then
// JavaScript's memory is still there; what has not begun never runs. After that no thread touches the isolate.
#pragma once
#include <condition_variable>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "../runtime/runtime.h"
#include "node.h"
#include "storage.h"

namespace gqa {

class AsyncCalls;

struct AsyncCall {
  explicit AsyncCall(Napi::Env env) : promise(Napi::Promise::Deferred::New(env)) {}

  AttendProblem problem = {};
  // The block tables' own copies, the arenas' pages; the second ones are the tail's.
  std::vector<int32_t> ids[2];
  std::shared_ptr<Pages> pages[2];
  std::atomic<int32_t>* cancel = nullptr;
  Status status = Status::ok;
  Napi::Promise::Deferred promise;
  napi_ref arrays = nullptr;  // keeps every array that the problem points into
  std::shared_ptr<AsyncCalls> owner;
};

class AsyncCalls : public std::enable_shared_from_this<AsyncCalls> {
 public:
  static std::shared_ptr<AsyncCalls> create(Napi::Env env);

  // Takes over the call and returns its promise of a Status.
  Napi::Value start(Napi::Env env, std::unique_ptr<AsyncCall> call);

 private:
  static void settle(Napi::Env env, Napi::Function, AsyncCalls* owner, AsyncCall* call);
  static void run(void* call);
  using Completion = Napi::TypedThreadSafeFunction<AsyncCalls, AsyncCall, settle>;

  bool begin(AsyncCall* call);
  void finish(AsyncCall* call);
  void close();

  Completion completion_;
  int unsettled_ = 0;  // seen by the isolate's own thread alone

  std::mutex mutex_;
  std::condition_variable idle_;
  std::set<AsyncCall*> running_;
  bool closed_ = false;
};

}  // namespace gqa
