// The process' own threads, which share parallel calls. No thread is ever joined and the pool is never destroyed: at
// exit the threads may still run, so what they use must outlive everything.
//
// A caller opens a slot, counts the call in `calls_`, which idle workers watch awake for a while (pacing.h), and works
// itself; whoever comes in time helps, nobody waits for who does not. Only sleepers and those who wake them lock.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>

#include "call_slot.h"
#include "pacing.h"
#include "platform.h"
#include "runtime.h"
#include "thread_limits.h"

namespace gqa {
namespace {

// Calls that share workers at once; further ones are their caller's alone.
constexpr int kSlots = 32;
// Sleepers that a thread wakes; each of them wakes as many more where more are wanted.
constexpr int kWakes = 2;

// Pool::calls_: the open slots, and above them a count of all calls ever opened.
constexpr uint64_t kOneCall = uint64_t{1} << kSlots;
uint64_t openSlots(uint64_t calls) { return calls & (kOneCall - 1); }
uint64_t callCount(uint64_t calls) { return calls >> kSlots; }

class Pool {
 public:
  static Pool& instance() {
    static Pool* pool = new Pool;
    return *pool;
  }

  int threads() const { return threads_.load(std::memory_order_relaxed); }
  void setThreads(int threads) { threads_ = std::max(1, std::min(threads, threadLimits().threads)); }

  // The index of a slot of one's own, or -1.
  int takeSlot();
  // False if the call was cancelled. Gives the slot back.
  bool run(const Call& call, int index);

 private:
  struct Use {
    int callers, workers;
  };

  int64_t callerItems(CallSlot& slot, int64_t wakeAt);
  void waitForWorkers(CallSlot& slot, int64_t lasted);
  void work();
  bool help(CallSlot& slot, uint64_t seen);
  void sleep(uint64_t seen);
  Use inUse(uint64_t calls) const;
  CallSlot* joinLeastShared(uint64_t calls);
  bool someAsleep() const;
  void wakeFor(const CallSlot& slot);

  CallSlot slots_[kSlots];
  alignas(kCacheLine) std::atomic<uint32_t> taken_{0};
  alignas(kCacheLine) std::atomic<uint64_t> calls_{0};
  alignas(kCacheLine) std::atomic<int> threads_{threadLimits().threads};
  std::atomic<int> started_{0}, sleeping_{0}, waitingCallers_{0};
  Crowd crowd_;
  Wakes wakes_;
  std::mutex mutex_;
  // Workers wait to be woken, callers for the last worker to leave their slot.
  std::condition_variable wake_, left_;
  int woken_ = 0;           // sleepers that may go on; sleeping_ does not count them any more
  bool exhausted_ = false;  // the system gave no more threads: those that are there do the work
};

int Pool::takeSlot() {
  uint32_t taken = taken_.load(std::memory_order_relaxed);
  for (;;) {
    int index = 0;
    while (index < kSlots && (taken >> index & 1) != 0) index++;
    if (index == kSlots) return -1;
    if (taken_.compare_exchange_weak(taken, taken | 1u << index, std::memory_order_acquire)) return index;
  }
}

bool Pool::run(const Call& call, int index) {
  CallSlot& slot = slots_[index];
  const int64_t start = nanoseconds();
  const int64_t wakeAfter = crowd_.lasts(start) ? Crowd::kWakeAfter : wakes_.after(call.body, call.items, start);
  slot.open(call, callCount(calls_.load(std::memory_order_relaxed)), currentProcessor());
  calls_.fetch_add(kOneCall | uint64_t{1} << index);  // sequentially consistent with sleep()
  if (wakeAfter == 0) wakeFor(slot);
  const int64_t done = callerItems(slot, start + wakeAfter);
  const int64_t end = nanoseconds();
  wakes_.ended(call.body, done, start, end, end - start >= wakeAfter);

  slot.close();
  calls_.fetch_sub(uint64_t{1} << index, std::memory_order_relaxed);
  waitForWorkers(slot, end - start);
  const bool complete = !slot.cancelled();
  taken_.fetch_and(~(1u << index), std::memory_order_release);
  return complete;
}

// Returns how many they were. Whoever sleeps from `wakeAt` on, be it that another call has ended, is woken.
int64_t Pool::callerItems(CallSlot& slot, int64_t wakeAt) {
  int64_t done = 0;
  for (; slot.runNext(); done++) {
    if (!someAsleep() || !slot.hasWork()) continue;
    const int64_t now = nanoseconds();
    if (now < wakeAt) continue;
    slot.callerIsOn(currentProcessor());
    wakeFor(slot);
    if (crowd_.lasts(now)) wakeAt = now + Crowd::kWakeAfter;
  }
  return done;
}

// Those inside have begun an item, which should not take longer than all that the caller did.
void Pool::waitForWorkers(CallSlot& slot, int64_t lasted) {
  const auto done = [&] { return slot.workers() == 0; };
  if (done()) return;
  const int64_t start = nanoseconds(), most = std::max(Crowd::kNoticed, lasted);
  if (!spinUntil(done, most, crowd_)) {
    std::unique_lock<std::mutex> lock(mutex_);
    waitingCallers_++;
    left_.wait(lock, done);
    waitingCallers_--;
  }
  const int64_t now = nanoseconds();
  if (now - start > most) crowd_.heldUp(now);
}

void Pool::work() {
  Patience patience;
  for (;;) {
    const uint64_t seen = calls_.load(std::memory_order_acquire);
    const Use use = inUse(seen);
    const bool needed = use.callers + use.workers < threads();  // callers work too
    const int64_t start = nanoseconds();
    if (CallSlot* slot = needed ? joinLeastShared(seen) : nullptr) {
      const bool displaces = !help(*slot, seen);
      const int64_t end = nanoseconds();
      patience.worked(end - start);
      if (!displaces) continue;
      crowd_.hinted(end);
      sleep(seen);
      continue;
    }
    const auto changed = [&] { return calls_.load(std::memory_order_acquire) != seen; };
    const bool found = spinUntil(changed, needed ? patience.left() : Patience::kSurplus, crowd_);
    patience.waited(nanoseconds() - start);
    if (!found) sleep(seen);
  }
}

// Runs items until none is left or another call has been opened, which may need this worker more. False where the
// caller would run on this processor, if this worker did not.
bool Pool::help(CallSlot& slot, uint64_t seen) {
  const int processor = currentProcessor();
  const bool displaces = processor >= 0 && processor == slot.callersProcessor();
  if (!displaces) {
    wakeFor(slot);
    while (slot.runNext() && callCount(calls_.load(std::memory_order_relaxed)) == callCount(seen)) {
    }
  }
  if (slot.leave() && waitingCallers_.load() > 0) {
    { std::lock_guard<std::mutex> lock(mutex_); }
    left_.notify_all();
  }
  return !displaces;
}

void Pool::sleep(uint64_t seen) {
  std::unique_lock<std::mutex> lock(mutex_);
  sleeping_++;  // before the look at calls_: run() counts there first and wakeFor() looks here then
  if (callCount(calls_.load()) != callCount(seen)) {
    sleeping_--;
    return;
  }
  wake_.wait(lock, [&] { return woken_ > 0; });
  woken_--;
}

Pool::Use Pool::inUse(uint64_t calls) const {
  Use use = {0, 0};
  const uint64_t open = openSlots(calls);
  for (int index = 0; open >> index != 0; index++) {
    if ((open >> index & 1) == 0) continue;
    use.callers++;
    use.workers += slots_[index].workers();
  }
  return use;
}

// The open call that has work and the fewest workers, the newest of several; null if none has.
CallSlot* Pool::joinLeastShared(uint64_t calls) {
  const uint64_t open = openSlots(calls);
  CallSlot* best = nullptr;
  int fewest = 0;
  for (int index = 0; open >> index != 0; index++) {
    CallSlot& slot = slots_[index];
    if ((open >> index & 1) == 0 || slot.room() <= 0 || !slot.hasWork()) continue;
    const int workers = slot.workers();
    if (best != nullptr && (workers > fewest || (workers == fewest && slot.order() < best->order()))) continue;
    best = &slot;
    fewest = workers;
  }
  return best != nullptr && best->join() ? best : nullptr;
}

// Or not yet started.
bool Pool::someAsleep() const {
  return sleeping_.load(std::memory_order_relaxed) > 0 || started_.load(std::memory_order_relaxed) + 1 < threads();
}

// Wakes sleepers, or starts workers, where those awake are fewer than the call can use.
void Pool::wakeFor(const CallSlot& slot) {
  const Use use = inUse(calls_.load(std::memory_order_relaxed));
  const int useful = std::min(slot.room(), threads() - use.callers - use.workers);
  const int idle = started_.load(std::memory_order_relaxed) - sleeping_.load() - use.workers;
  if (useful <= idle) return;
  int waking;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const int wanted = std::min(useful - idle, kWakes);
    waking = std::min(wanted, sleeping_.load(std::memory_order_relaxed));
    sleeping_ -= waking;
    woken_ += waking;
    for (int i = waking; i < wanted && !exhausted_ && started_ < threadLimits().threads - 1; i++) {
      exhausted_ = !startThread([this] { work(); });
      if (!exhausted_) started_++;
    }
  }
  for (int i = 0; i < waking; i++) wake_.notify_one();
}

bool runInline(const Call& call) {
  for (int64_t item = 0; item < call.items; item++) {
    if (call.cancel != nullptr && call.cancel->load(std::memory_order_relaxed) != 0) return false;
    call.body(call.context, item);
  }
  return true;
}

}  // namespace

int threadCount() { return Pool::instance().threads(); }
void limitThreads(int threads) { Pool::instance().setThreads(threads); }
const char* threadReason() { return threadLimits().reason; }

bool parallelFor(int64_t items, void (*body)(void* context, int64_t item), void* context, CancelFlag cancel) {
  Pool& pool = Pool::instance();
  const int threads = static_cast<int>(std::min<int64_t>(pool.threads(), items));
  const int slot = threads > 1 ? pool.takeSlot() : -1;
  const Call call = {items, body, context, cancel, threads - 1};
  return slot < 0 ? runInline(call) : pool.run(call, slot);
}

}  // namespace gqa
