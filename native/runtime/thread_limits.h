// How many threads this process should use: CPU affinity, cgroup quota, GQA_THREADS.
#pragma once

namespace gqa {

// Sanity bound of GQA_THREADS.
constexpr int kMaxThreads = 1024;

struct ThreadLimits {
  int threads;     // at least 1
  int processors;  // that the threads may run on
  bool valid;      // false where GQA_THREADS is not a number from 1 to kMaxThreads; `reason` then says so
  char reason[160];
};

// Decided once, at the first call.
const ThreadLimits& threadLimits();

// Processors' worth of time the cgroups of this process grant, v2 and v1, all ancestors included; 0 for no limit.
// `root` goes before /proc and /sys: "" but for tests.
double cgroupQuota(const char* root);
ThreadLimits chooseThreads(int processors, double quota, const char* forced);

}  // namespace gqa
