// The machine's own limits, one slice a thread; whoever calls takes the time.
#include <algorithm>
#include <atomic>
#include <thread>

#include "pacing.h"
#include "platform.h"
#include "runtime.h"

namespace gqa {
namespace {

// Slices per probe: more than threads, so that a thread that starts late delays nobody.
constexpr int64_t kSliceBytes = 8 << 20;

struct ReadJob {
  const OpTable* ops;
  const char* data;
  int64_t bytes;
};

void readSlice(void* context, int64_t item) {
  const ReadJob& job = *static_cast<ReadJob*>(context);
  const int64_t first = item * kSliceBytes;
  job.ops->probeRead(job.data + first, std::min(kSliceBytes, job.bytes - first));
}

// Arithmetic on all threads: `run` does `iterations` of something on one and returns how many operations they were.
struct ArithmeticJob {
  double (*run)(int64_t iterations);
  int64_t iterations;
};

void arithmeticSlice(void* context, int64_t) {
  const ArithmeticJob& job = *static_cast<ArithmeticJob*>(context);
  job.run(job.iterations);
}

double onAllThreads(double (*run)(int64_t), int64_t iterations) {
  // A few slices a thread: even, yet none waits long for one that starts late.
  const int64_t slices = 4 * threadCount();
  ArithmeticJob job = {run, (iterations + slices - 1) / slices};
  const double operations = run(1);
  if (operations > 0) parallelFor(slices, arithmeticSlice, &job, nullptr);
  return operations * double(job.iterations) * double(slices);
}

double multiplyAdds(int64_t iterations) { return opTable()->probeFma(iterations); }
double bf16Products(int64_t iterations) { return opTable()->probeDot(DotKind::bf16, iterations); }
double int8Products(int64_t iterations) { return opTable()->probeDot(DotKind::int8, iterations); }

// How long a caller waits for a second thread: a sleeper takes some tens of microseconds to come.
constexpr int64_t kWakePatience = 200 * kMicrosecond;

struct WakeJob {
  std::thread::id caller;
  int64_t start;
  std::atomic<int64_t> came{-1};
};

void wakeItem(void* context, int64_t) {
  WakeJob& job = *static_cast<WakeJob*>(context);
  if (std::this_thread::get_id() != job.caller) {
    job.came.store(nanoseconds() - job.start, std::memory_order_relaxed);
    return;
  }
  while (job.came.load(std::memory_order_relaxed) < 0 && nanoseconds() - job.start < kWakePatience) pauseThread();
}

}  // namespace

void probeRead(const void* data, int64_t bytes) {
  ReadJob job = {opTable(), static_cast<const char*>(data), bytes};
  parallelFor((bytes + kSliceBytes - 1) / kSliceBytes, readSlice, &job, nullptr);
}

double probeFma(int64_t iterations) { return onAllThreads(multiplyAdds, iterations); }

double probeDot(DotKind kind, int64_t iterations) {
  return onAllThreads(kind == DotKind::bf16 ? bf16Products : int8Products, iterations);
}

double probeTiles(int64_t iterations) { return tilesGranted() ? onAllThreads(multiplyTiles, iterations) : 0; }

double probeWake() {
  WakeJob job;
  job.caller = std::this_thread::get_id();
  job.start = nanoseconds();
  parallelFor(2, wakeItem, &job, nullptr);
  return static_cast<double>(job.came.load(std::memory_order_relaxed));
}

}  // namespace gqa
