// Where a parallel call in progress is shared. Slots belong to the pool and are never freed, so a late look at one is
// harmless, and joining a call is one compare-and-swap.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "runtime.h"
#include "thread_limits.h"

namespace gqa {

// A cache line, so that what one thread writes often does not share one with what others read.
constexpr size_t kCacheLine = 64;

// What its caller asked for; see parallelFor.
struct Call {
  int64_t items;
  void (*body)(void*, int64_t);
  void* context;
  CancelFlag cancel;
  int workers;  // that may help at most
};

class CallSlot {
 public:
  // By the slot's owner: workers may join from here on, until `close`.
  void open(const Call& call, uint64_t order, int processor) {
    call_ = call;
    order_.store(order, std::memory_order_relaxed);
    items_.store(call.items, std::memory_order_relaxed);
    cancelled_.store(false, std::memory_order_relaxed);
    callerIsOn(processor);
    next_.store(0, std::memory_order_relaxed);
    state_.store(kOpen | static_cast<uint32_t>(call.workers) << kRoomShift, std::memory_order_release);
  }
  void close() { state_.fetch_and(~kOpen); }
  // The processor that the caller was last seen on, -1 for unknown.
  void callerIsOn(int processor) { processor_.store(processor, std::memory_order_relaxed); }

  // By anyone, about whatever call is open here.
  int workers() const { return workersIn(state_.load()); }
  int room() const { return roomIn(state_.load(std::memory_order_relaxed)); }
  bool hasWork() const { return next_.load(std::memory_order_relaxed) < items_.load(std::memory_order_relaxed); }
  uint64_t order() const { return order_.load(std::memory_order_relaxed); }
  int callersProcessor() const { return processor_.load(std::memory_order_relaxed); }

  bool join() {
    uint32_t state = state_.load(std::memory_order_relaxed);
    while (roomIn(state) > 0) {
      if (state_.compare_exchange_weak(state, state + 1, std::memory_order_acquire)) return true;
    }
    return false;
  }
  // True for the last worker of a call.
  bool leave() { return workersIn(state_.fetch_sub(1)) == 1; }

  // By the owner and those who joined: runs the next item, if there is one and the call is not cancelled.
  bool runNext() {
    if (call_.cancel != nullptr && call_.cancel->load(std::memory_order_relaxed) != 0) {
      if (next_.exchange(call_.items, std::memory_order_relaxed) < call_.items)
        cancelled_.store(true, std::memory_order_relaxed);
      return false;
    }
    const int64_t item = next_.fetch_add(1, std::memory_order_relaxed);
    if (item >= call_.items) return false;
    call_.body(call_.context, item);
    return true;
  }
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }

 private:
  // state_: whether workers may join, how many at most, how many are inside.
  static constexpr uint32_t kOpen = 1u << 31, kRoomShift = 16, kInside = (1u << kRoomShift) - 1;
  static_assert(kMaxThreads < (1 << 15), "15 bits count the workers at most");

  static int workersIn(uint32_t state) { return static_cast<int>(state & kInside); }
  static int roomIn(uint32_t state) {
    return (state & kOpen) == 0 ? 0 : static_cast<int>((state & ~kOpen) >> kRoomShift) - workersIn(state);
  }

  alignas(kCacheLine) std::atomic<uint32_t> state_{0};
  Call call_ = {};  // written before state_ opens, read by those who joined
  std::atomic<int64_t> items_{0};
  std::atomic<uint64_t> order_{0};  // calls that were opened before
  std::atomic<bool> cancelled_{false};
  std::atomic<int> processor_{-1};
  alignas(kCacheLine) std::atomic<int64_t> next_{0};
};

}  // namespace gqa
