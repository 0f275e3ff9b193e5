// Stress of the thread pool, for ThreadSanitizer above all: many callers at once, nesting, cancelling, detached jobs.
// g++ -std=c++17 -O1 -g -fsanitize=thread -Inative test/native/thread_pool.cc
//   native/runtime/{thread_pool,detached,thread_limits,platform}.cc -o thread_pool -pthread -ldl && ./thread_pool
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "checks.h"
#include "runtime/runtime.h"
#include "runtime/thread_limits.h"

using namespace gqa;

namespace {

constexpr std::chrono::seconds kPatience(60);  // nothing here takes long unless it hangs
constexpr std::chrono::milliseconds kWhile(30);

template <class Body>
bool forEach(int64_t items, Body body, CancelFlag cancel = nullptr) {
  return parallelFor(
      items, [](void* context, int64_t item) { (*static_cast<Body*>(context))(item); }, &body, cancel);
}

template <class Condition>
bool eventually(Condition condition) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
  return true;
}

// Plain, unsynchronised writes: the pool must order them before parallelFor returns.
void everyItemOnce() {
  for (const int64_t items : {0, 1, 2, 3, 7, 64, 1000, 20000}) {
    std::vector<int> hits(static_cast<size_t>(items), 0);
    CHECK(forEach(items, [&](int64_t i) { hits[static_cast<size_t>(i)]++; }));
    bool once = true;
    for (const int h : hits) once = once && h == 1;
    CHECK(once);
  }
}

void ascendingOnEachThread() {
  std::mutex mutex;
  std::vector<std::pair<std::thread::id, int64_t>> starts;
  forEach(500, [&](int64_t i) {
    std::lock_guard<std::mutex> lock(mutex);
    starts.push_back({std::this_thread::get_id(), i});
  });
  bool ascending = true;
  for (size_t a = 0; a < starts.size(); a++) {
    for (size_t b = a + 1; b < starts.size(); b++) {
      if (starts[a].first == starts[b].first && starts[a].second >= starts[b].second) ascending = false;
    }
  }
  CHECK(ascending);
}

void manyCallers() {
  constexpr int kCallers = 5, kCalls = 1000;
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < kCallers; c++) {
    callers.emplace_back([&, c] {
      for (int n = 0; n < kCalls; n++) {
        const int64_t items = (n * 7 + c * 13) % 50;
        std::atomic<int64_t> sum{0};
        forEach(items, [&](int64_t i) { sum += i + 1; });
        if (sum != items * (items + 1) / 2) wrong++;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(wrong == 0);
}

void nested() {
  std::atomic<int> inner{0};
  forEach(8, [&](int64_t) { forEach(8, [&](int64_t) { forEach(3, [&](int64_t) { inner++; }); }); });
  CHECK(inner == 8 * 8 * 3);
}

void cancelling() {
  std::atomic<int32_t> flag{1};
  std::atomic<int> ran{0};
  CHECK(!forEach(
      100, [&](int64_t) { ran++; }, &flag));
  CHECK(ran == 0);

  flag = 0;
  CHECK(forEach(
      100, [&](int64_t) { ran++; }, &flag));
  CHECK(ran == 100);

  for (int round = 0; round < 50; round++) {
    flag = 0;
    ran = 0;
    const bool complete = forEach(
        100000,
        [&](int64_t) {
          const int order = ++ran;
          if (order == 10) flag = 1;
          // Nobody gets ahead of the thread that cancels, however the system schedules it.
          while (order > 10 && flag == 0) std::this_thread::yield();
        },
        &flag);
    CHECK(!complete);
    CHECK(ran >= 10 && ran < 10 + threadCount());  // each thread may finish the item it had begun
  }

  // Cancelled by the last item, after every item has started: that is complete.
  flag = 0;
  CHECK(forEach(
      1, [&](int64_t) { flag = 1; }, &flag));
}

void limited() {
  const int full = threadCount();
  limitThreads(1);
  CHECK(threadCount() == 1);
  const auto self = std::this_thread::get_id();
  bool alone = true;  // unsynchronised on purpose
  forEach(1000, [&](int64_t) { alone = alone && std::this_thread::get_id() == self; });
  CHECK(alone);
  limitThreads(full + 100);
  CHECK(threadCount() == full);
}

// An item's work, awake: a worker that wakes where its caller last ran leaves it the processor.
void work() {
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(20);
  while (std::chrono::steady_clock::now() < end) {
  }
}

// The threads that have been at one place.
class ThreadSet {
 public:
  void insertSelf() {
    std::lock_guard<std::mutex> lock(mutex_);
    threads_.insert(std::this_thread::get_id());
  }
  int size() {
    std::lock_guard<std::mutex> lock(mutex_);
    return static_cast<int>(threads_.size());
  }

 private:
  std::mutex mutex_;
  std::set<std::thread::id> threads_;
};

// Runs short items for a while and until `enough` of them have been on different threads; false if that never comes.
bool spreads(ThreadSet& threads, int enough) {
  std::atomic<int32_t> stop{0};
  const auto start = std::chrono::steady_clock::now();
  forEach(
      int64_t{1} << 40,
      [&](int64_t) {
        threads.insertSelf();
        work();
        const auto lasted = std::chrono::steady_clock::now() - start;
        if (lasted > kPatience || (lasted > kWhile && threads.size() >= enough)) stop = 1;
      },
      &stop);
  return threads.size() >= enough;
}

// A call gets a thread for every processor that other callers leave it, whatever calls come and go; one opened
// meanwhile gets its share before that one ends. More is no promise: a worker that could only displace its caller
// sleeps.
void shared() {
  const int processors = std::min(threadCount(), threadLimits().processors);
  ThreadSet alone;
  CHECK(spreads(alone, processors));

  ThreadSet all;
  std::atomic<bool> ended{false};
  bool spread = false;
  std::thread longCaller([&] {
    spread = spreads(all, processors - 1);
    ended = true;
  });
  while (!ended) forEach(2, [](int64_t) {});
  longCaller.join();
  CHECK(spread);

  std::atomic<int32_t> stop{0};
  std::atomic<bool> begun{false};
  std::thread another([&] {
    forEach(
        int64_t{1} << 40,
        [&](int64_t) {
          begun = true;
          work();
        },
        &stop);
  });
  CHECK(eventually([&] { return begun.load(); }));
  ThreadSet some;
  CHECK(spreads(some, std::min(2, processors - 1)));
  stop = 1;
  another.join();
}

struct Detached {
  std::atomic<int>* done;
  int64_t items;
};

void detached() {
  constexpr int kSenders = 3, kJobs = 100;
  std::atomic<int> done{0};
  std::vector<Detached> jobs(kSenders * kJobs);
  std::vector<std::thread> senders;
  for (int s = 0; s < kSenders; s++) {
    senders.emplace_back([&, s] {
      for (int j = 0; j < kJobs; j++) {
        Detached* job = &jobs[static_cast<size_t>(s * kJobs + j)];
        *job = {&done, j % 9};
        runDetached(
            [](void* context) {
              Detached* self = static_cast<Detached*>(context);
              std::atomic<int64_t> count{0};
              forEach(self->items, [&](int64_t) { count++; });
              if (count == self->items) ++*self->done;
            },
            job);
      }
    });
  }
  for (std::thread& sender : senders) sender.join();
  CHECK(eventually([&] { return done == kSenders * kJobs; }));
}

int runAll() {
  everyItemOnce();
  ascendingOnEachThread();
  manyCallers();
  nested();
  cancelling();
  limited();
  shared();
  detached();
  return checksFailed == 0 ? checksPassed.load() : -1;
}

}  // namespace

// Each thread count in a process of its own, for it is read once. 2 spins between calls on most machines, 8 does not.
int main() {
  for (const char* threads : {"1", "2", "3", "8"}) {
    const pid_t child = fork();
    if (child == 0) {
      setenv("GQA_THREADS", threads, 1);
      checksFailed = 0;
      std::fflush(stderr);
      _exit(runAll() > 0 ? 0 : 1);
    }
    int status = 0;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    if (status != 0) std::fprintf(stderr, "with %s threads: status %d\n", threads, status);
    CHECK(status == 0);
  }
  return reportChecks();
}
