// The machine's own limits, one slice a thread; whoever calls takes the time.
#include <algorithm>

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

struct FmaJob {
  const OpTable* ops;
  int64_t iterations;
};

void fmaSlice(void* context, int64_t) {
  const FmaJob& job = *static_cast<FmaJob*>(context);
  job.ops->probeFma(job.iterations);
}

}  // namespace

void probeRead(const void* data, int64_t bytes) {
  ReadJob job = {opTable(), static_cast<const char*>(data), bytes};
  parallelFor((bytes + kSliceBytes - 1) / kSliceBytes, readSlice, &job, nullptr);
}

double probeFma(int64_t iterations) {
  // A few slices a thread: even, yet none waits long for one that starts late.
  const int64_t slices = 4 * threadCount();
  FmaJob job = {opTable(), (iterations + slices - 1) / slices};
  const double flop = job.ops->probeFma(1);
  parallelFor(slices, fmaSlice, &job, nullptr);
  return flop * double(job.iterations) * double(slices);
}

}  // namespace gqa
