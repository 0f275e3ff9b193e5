// The process' own threads: workers that share parallel calls, and runners for detached jobs. No thread is ever joined
// and the pool is never destroyed: at exit the threads may still run, so what they use must outlive everything.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>

#include "platform.h"
#include "runtime.h"
#include "thread_limits.h"

namespace gqa {
namespace {

// A cache line, so that the item counter does not share one with what every participant reads.
constexpr size_t kCacheLine = 64;
// Waking a sleeping thread costs about this much, so waiting any longer awake would cost more than it saves.
constexpr std::chrono::microseconds kSpin(30);
// Pauses between two looks at the clock, which costs about as much as they do.
constexpr int kPausesPerLook = 16;
// Async calls that run at once; the others queue. Each of them is parallel in itself.
constexpr int kMaxRunners = 4;

// One parallelFor in progress; lives on its caller's stack.
struct Call {
  int64_t items;
  void (*body)(void*, int64_t);
  void* context;
  CancelFlag cancel;
  int maxWorkers;
  Call* nextOpen = nullptr;
  alignas(kCacheLine) std::atomic<int64_t> next{0};
  std::atomic<bool> cancelled{false};
  alignas(kCacheLine) std::atomic<int> workers{0};
};

struct Job {
  void (*run)(void*);
  void* context;
};

class Pool {
 public:
  static Pool& instance() {
    static Pool* pool = new Pool;
    return *pool;
  }

  int limit() const { return limit_.load(std::memory_order_relaxed); }
  void setLimit(int threads) { limit_ = std::max(1, std::min(threads, threadLimits().threads)); }

  void run(Call& call) {
    open(call);
    takeItems(call, nullptr, 0);
    close(call);
  }

  // False where no thread can be had.
  bool enqueue(Job job);

 private:
  void open(Call& call);
  void close(Call& call);
  void takeItems(Call& call, const std::atomic<uint32_t>* epoch, uint32_t seen);
  Call* leastShared();
  void startWorkers(int wanted);
  void work();
  void leave(Call& call);
  void runJobs();

  std::mutex mutex_;
  // Workers: wait for `epoch_` to move; callers: wait for the last worker to leave their call.
  std::condition_variable wake_, left_;
  Call* openCalls_ = nullptr;
  int started_ = 0, sleeping_ = 0;
  bool exhausted_ = false;  // the system gave no more threads: those that are there do the work
  std::atomic<int> limit_{threadLimits().threads};
  std::atomic<int> waitingCallers_{0};
  // Counts opened calls: a worker that sees it move looks again for the call that needs it most.
  alignas(kCacheLine) std::atomic<uint32_t> epoch_{0};
  alignas(kCacheLine) std::atomic<int> spinning_{0};

  std::mutex jobMutex_;
  std::condition_variable jobWake_;
  std::deque<Job> jobs_;
  int runners_ = 0, idleRunners_ = 0;
};

template <class Condition>
bool spinUntil(Condition condition) {
  // With more threads than processors a spinning thread keeps a working one from running.
  if (threadLimits().threads > threadLimits().processors) return condition();
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < kPausesPerLook; i++) {
      if (condition()) return true;
      pauseThread();
    }
  } while (std::chrono::steady_clock::now() < end);
  return condition();
}

// False where the system has no more threads to give.
template <class Body>
bool startThread(Body body) {
  const SignalsBlocked signalsStayWithTheCaller;
  try {
    std::thread(body).detach();
    return true;
  } catch (const std::system_error&) {
    return false;
  }
}

// Announces a call and wakes as many workers as it can use.
void Pool::open(Call& call) {
  int wanted;
  bool everyone;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    startWorkers(call.maxWorkers);
    call.nextOpen = openCalls_;
    openCalls_ = &call;
    epoch_.fetch_add(1, std::memory_order_release);
    wanted = std::min(call.maxWorkers - spinning_.load(std::memory_order_relaxed), sleeping_);
    everyone = wanted > 1 && wanted == sleeping_;
  }
  if (everyone) {
    wake_.notify_all();
  } else {
    for (int i = 0; i < wanted; i++) wake_.notify_one();
  }
}

// Withdraws a call and waits until no worker touches it.
void Pool::close(Call& call) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    Call** link = &openCalls_;
    while (*link != &call) link = &(*link)->nextOpen;
    *link = call.nextOpen;
  }
  const auto done = [&] { return call.workers.load() == 0; };
  if (spinUntil(done)) return;
  std::unique_lock<std::mutex> lock(mutex_);
  waitingCallers_++;
  left_.wait(lock, done);
  waitingCallers_--;
}

// Runs items until none is left, the call is cancelled or, for a worker, another call has been opened.
void Pool::takeItems(Call& call, const std::atomic<uint32_t>* epoch, uint32_t seen) {
  for (;;) {
    if (call.cancel != nullptr && call.cancel->load(std::memory_order_relaxed) != 0) {
      if (call.next.exchange(call.items) < call.items) call.cancelled = true;
      return;
    }
    const int64_t item = call.next.fetch_add(1, std::memory_order_relaxed);
    if (item >= call.items) return;
    call.body(call.context, item);
    if (epoch != nullptr && epoch->load(std::memory_order_relaxed) != seen) return;
  }
}

// The open call that has work and the fewest workers; null if none has.
Call* Pool::leastShared() {
  Call* best = nullptr;
  int fewest = 0;
  for (Call* call = openCalls_; call != nullptr; call = call->nextOpen) {
    const int workers = call->workers.load(std::memory_order_relaxed);
    if (workers >= call->maxWorkers || call->next.load(std::memory_order_relaxed) >= call->items) continue;
    // At a tie the newest call, which is first in the list: it is likely the shorter one.
    if (best != nullptr && workers >= fewest) continue;
    best = call;
    fewest = workers;
  }
  return best;
}

void Pool::startWorkers(int wanted) {
  while (started_ < wanted && !exhausted_) {
    pinLibrary();
    if (startThread([this] { work(); })) {
      started_++;
    } else {
      exhausted_ = true;
    }
  }
}

void Pool::work() {
  for (;;) {
    uint32_t seen;
    Call* call;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      call = leastShared();
      seen = epoch_.load(std::memory_order_relaxed);
      if (call != nullptr) call->workers.fetch_add(1, std::memory_order_relaxed);
    }
    if (call != nullptr) {
      takeItems(*call, &epoch_, seen);
      leave(*call);
      continue;
    }
    const auto opened = [&] { return epoch_.load(std::memory_order_acquire) != seen; };
    spinning_.fetch_add(1, std::memory_order_relaxed);
    const bool found = spinUntil(opened);
    spinning_.fetch_sub(1, std::memory_order_relaxed);
    if (found) continue;
    std::unique_lock<std::mutex> lock(mutex_);
    sleeping_++;
    wake_.wait(lock, opened);
    sleeping_--;
  }
}

// `call` may be gone as soon as its count is down: nothing of it is touched after.
void Pool::leave(Call& call) {
  if (call.workers.fetch_sub(1) != 1 || waitingCallers_.load() == 0) return;
  { std::lock_guard<std::mutex> lock(mutex_); }
  left_.notify_all();
}

bool Pool::enqueue(Job job) {
  std::lock_guard<std::mutex> lock(jobMutex_);
  const int most = std::min(kMaxRunners, threadLimits().threads);
  if (idleRunners_ <= static_cast<int>(jobs_.size()) && runners_ < most) {
    pinLibrary();
    if (startThread([this] { runJobs(); })) runners_++;
  }
  if (runners_ == 0) return false;
  jobs_.push_back(job);
  jobWake_.notify_one();
  return true;
}

void Pool::runJobs() {
  std::unique_lock<std::mutex> lock(jobMutex_);
  for (;;) {
    idleRunners_++;
    jobWake_.wait(lock, [this] { return !jobs_.empty(); });
    idleRunners_--;
    const Job job = jobs_.front();
    jobs_.pop_front();
    lock.unlock();
    job.run(job.context);
    lock.lock();
  }
}

bool runInline(int64_t items, void (*body)(void*, int64_t), void* context, CancelFlag cancel) {
  for (int64_t item = 0; item < items; item++) {
    if (cancel != nullptr && cancel->load(std::memory_order_relaxed) != 0) return false;
    body(context, item);
  }
  return true;
}

}  // namespace

int threadCount() { return Pool::instance().limit(); }
void limitThreads(int threads) { Pool::instance().setLimit(threads); }
const char* threadReason() { return threadLimits().reason; }

bool parallelFor(int64_t items, void (*body)(void* context, int64_t item), void* context, CancelFlag cancel) {
  Pool& pool = Pool::instance();
  const int threads = static_cast<int>(std::min<int64_t>(pool.limit(), items));
  if (threads <= 1) return runInline(items, body, context, cancel);
  Call call{items, body, context, cancel, threads - 1};
  pool.run(call);
  return !call.cancelled;
}

void runDetached(void (*job)(void* context), void* context) {
  if (!Pool::instance().enqueue({job, context})) job(context);
}

}  // namespace gqa
