// Arenas, packed weights and mapped files of such: pages of memory behind an external value.
#pragma once
#include <memory>

#include "../runtime/runtime.h"
#include "node.h"

namespace gqa {

// Freed when neither a handle nor an async call holds them any more.
class Pages {
 public:
  static std::shared_ptr<Pages> allocate(int64_t bytes);  // null when memory is short
  static std::shared_ptr<Pages> ofFile(const FileMapping& mapping);
  ~Pages();
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;

  char* base() const { return mapping_.base; }
  int64_t bytes() const { return mapping_.bytes; }
  bool shared() const { return mapping_.shared; }

 private:
  explicit Pages(const FileMapping& mapping) : mapping_(mapping) {}
  FileMapping mapping_;  // of a file; else this process's own memory
};

struct Storage {
  enum class Kind { arena, weights, file };

  Kind kind;
  std::shared_ptr<Pages> pages;  // null once released; weights of a file hold the file's
  ArenaView arena;               // of kind arena
  WeightsView weights;           // of kind weights
  int64_t told = 0;              // bytes that the garbage collector knows of
};

// The external value of storage that has pages; the garbage collector is told of `bytes`.
Napi::Value wrapStorage(Napi::Env env, Storage storage, int64_t bytes);

Napi::Value createArenaCall(const Napi::CallbackInfo& info);
Napi::Value packWeightsCall(const Napi::CallbackInfo& info);
void releaseCall(const Napi::CallbackInfo& info);

}  // namespace gqa
