// When the threads of the pool spin, sleep and wake: what they wait for costs microseconds, waking a sleeper tens.
#pragma once
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>

#include "platform.h"
#include "thread_limits.h"

namespace gqa {

inline int64_t nanoseconds() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

constexpr int64_t kMicrosecond = 1000;

// Whether more threads want to run than there are free processors, judged by what happens to those we have: one that
// was taken off its processor comes back milliseconds later. For as long as this may be so nobody spins and short
// calls wake nobody, because a worker that loses its processor in the middle of an item holds up the whole call.
class Crowd {
 public:
  // Shorter gaps are interrupts; a scheduler's time slice is longer.
  static constexpr int64_t kNoticed = 500 * kMicrosecond;
  // A call that has lasted this long is worth a worker all the same.
  static constexpr int64_t kWakeAfter = 1000 * kMicrosecond;

  bool lasts(int64_t now) const { return always_ || now < until_.load(std::memory_order_relaxed); }

  // A thread found that it had not been running, or that its caller could not: that cost little, so soon try again.
  void hinted(int64_t now) {
    if (!lasts(now)) until_.store(now + kShortest, std::memory_order_relaxed);
  }

  // A call was held up. Each further time doubles for how long the crowd is believed in, a calm spell ends that.
  void heldUp(int64_t now) {
    const int64_t ended = until_.load(std::memory_order_relaxed), last = length_.load(std::memory_order_relaxed);
    if (now < ended) return;
    const int64_t calm = now - ended;
    const int64_t length = calm < 4 * last ? std::min(2 * last, kLongest) : calm < 64 * last ? last : kShortest;
    length_.store(length, std::memory_order_relaxed);
    until_.store(now + length, std::memory_order_relaxed);
  }

 private:
  static constexpr int64_t kShortest = 4000 * kMicrosecond, kLongest = 128000 * kMicrosecond;

  const bool always_ = threadLimits().threads > threadLimits().processors;
  std::atomic<int64_t> until_{0}, length_{kShortest};
};

// Waits awake for `condition`, `most` nanoseconds at most; false where it is still not met. A thread that finds that it
// was not running meanwhile says so.
template <class Condition>
bool spinUntil(Condition condition, int64_t most, Crowd& crowd) {
  // Pauses between two looks at the clock, which costs about as much as they do.
  constexpr int kPausesPerLook = 8;
  if (condition()) return true;
  const int64_t start = nanoseconds();
  for (int64_t now = start, last = start; now - start < most && !crowd.lasts(now); last = now, now = nanoseconds()) {
    if (now - last > Crowd::kNoticed) crowd.hinted(now);
    for (int i = 0; i < kPausesPerLook; i++) {
      if (condition()) return true;
      pauseThread();
    }
  }
  return condition();
}

// How long an idle worker stays awake: as long as it has lately worked, so that in a stream of calls it bridges the
// pauses between them and yet never spends more time waiting than working, but for the least.
class Patience {
 public:
  // The pauses of JavaScript between the calls of one token; those between tokens, sampling included.
  static constexpr int64_t kLeast = 200 * kMicrosecond, kMost = 2000 * kMicrosecond;
  // Of a worker that is one too many until some other call ends.
  static constexpr int64_t kSurplus = 20 * kMicrosecond;

  int64_t left() const { return std::max(credit_, kLeast); }
  void worked(int64_t time) { credit_ = std::min(credit_ + time, kMost); }
  void waited(int64_t time) { credit_ = std::max<int64_t>(credit_ - time, 0); }

 private:
  int64_t credit_ = 0;
};

// Whether waking sleepers pays for a call: it costs the caller 10 microseconds and they come after 30, so the call, or
// a stream of calls that will find them awake, must have more work than that.
class Wakes {
 public:
  // How long a call must have lasted before sleepers are woken; 0 for at once, as where nothing is known about it.
  int64_t after(void (*body)(void*, int64_t), int64_t items, int64_t now) const {
    const int64_t item = itemTime(body).load(std::memory_order_relaxed);
    if (item == 0 || item >= kWakeTime / items) return 0;
    const bool stream = now - lastEnd_.load(std::memory_order_relaxed) < Patience::kLeast;
    return stream && alone_.load(std::memory_order_relaxed) + item * items >= kWakeTime ? 0 : kWakeTime;
  }

  // The caller ran `done` items of the call.
  void ended(void (*body)(void*, int64_t), int64_t done, int64_t start, int64_t end, bool woke) {
    if (done > 0) itemTime(body).store((end - start) / done, std::memory_order_relaxed);
    const bool stream = start - lastEnd_.load(std::memory_order_relaxed) < Patience::kLeast;
    const int64_t before = stream ? alone_.load(std::memory_order_relaxed) : 0;
    alone_.store(woke ? 0 : before + end - start, std::memory_order_relaxed);
    lastEnd_.store(end, std::memory_order_relaxed);
  }

 private:
  static constexpr int64_t kWakeTime = 30 * kMicrosecond;
  static constexpr size_t kPlaces = 64;

  // What an item of a function lately took. The functions are few; two that share a place are guessed worse.
  std::atomic<int64_t>& itemTime(void (*body)(void*, int64_t)) {
    return itemTimes_[reinterpret_cast<uintptr_t>(body) / 16 % kPlaces];
  }
  const std::atomic<int64_t>& itemTime(void (*body)(void*, int64_t)) const {
    return itemTimes_[reinterpret_cast<uintptr_t>(body) / 16 % kPlaces];
  }

  std::atomic<int64_t> itemTimes_[kPlaces] = {};
  // Time that the calls of a stream have lasted since sleepers were last woken, and when the last call ended.
  std::atomic<int64_t> alone_{0}, lastEnd_{0};
};

}  // namespace gqa
