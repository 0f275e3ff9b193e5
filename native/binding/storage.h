// Arenas and packed weights: pages of memory behind an external value.
#pragma once
#include <memory>

#include "../ops.h"
#include "node.h"

namespace gqa {

// Freed when neither its handle nor an async call holds it any more.
class Pages {
 public:
  static std::shared_ptr<Pages> allocate(int64_t bytes);  // null when memory is short
  ~Pages();
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;

  char* base() const { return base_; }
  int64_t bytes() const { return bytes_; }

 private:
  Pages(char* base, int64_t bytes) : base_(base), bytes_(bytes) {}
  char* base_;
  int64_t bytes_;
};

struct Storage {
  enum class Kind { arena, weights };

  Kind kind;
  std::shared_ptr<Pages> pages;  // null once released
  ArenaView arena;               // of kind arena
  WeightsView weights;           // of kind weights
};

Napi::Value createArenaCall(const Napi::CallbackInfo& info);
Napi::Value packWeightsCall(const Napi::CallbackInfo& info);
void releaseCall(const Napi::CallbackInfo& info);

}  // namespace gqa
