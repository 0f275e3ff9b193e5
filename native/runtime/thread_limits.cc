// Reads the limits from the system: sched_getaffinity, /proc/self/cgroup, /proc/self/mountinfo, cpu.max, cfs quota.
#include "thread_limits.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace gqa {
namespace {

struct Mount {
  std::string root;   // the cgroup that is mounted
  std::string point;  // where
};

bool hasWord(const std::string& commaList, const char* word) {
  std::istringstream words(commaList);
  for (std::string item; std::getline(words, item, ',');) {
    if (item == word) return true;
  }
  return false;
}

// The hierarchy that controls the CPU: cgroup v2, or v1 with the cpu controller. Format: proc(5), mountinfo.
bool findMount(const std::string& root, bool v2, Mount& mount) {
  std::ifstream file(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    std::istringstream left(line.substr(0, dash)), right(line.substr(dash + 3));
    std::string id, parent, device, type, source, options;
    Mount found;
    left >> id >> parent >> device >> found.root >> found.point;
    right >> type >> source >> options;
    if (v2 ? type != "cgroup2" : (type != "cgroup" || !hasWord(options, "cpu"))) continue;
    mount = found;
    return true;
  }
  return false;
}

// This process' path in that hierarchy. Lines are "0::/path" for v2 and "4:cpu,cpuacct:/path" for v1.
bool findPath(const std::string& root, bool v2, std::string& path) {
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (v2 ? !controllers.empty() : !hasWord(controllers, "cpu")) continue;
    path = line.substr(second + 1);
    return true;
  }
  return false;
}

// Processors granted by the files of one folder; 0 for no limit.
double folderQuota(const std::string& folder, bool v2) {
  double quota = 0, period = 0;
  if (v2) {
    std::ifstream file(folder + "/cpu.max");  // "max 100000" or "200000 100000"
    if (!(file >> quota >> period)) return 0;
  } else {
    std::ifstream quotaFile(folder + "/cpu.cfs_quota_us"), periodFile(folder + "/cpu.cfs_period_us");
    if (!(quotaFile >> quota) || !(periodFile >> period)) return 0;  // quota -1 for none
  }
  return quota > 0 && period > 0 ? quota / period : 0;
}

// The tightest quota from this process' cgroup up to the root of the mount.
double hierarchyQuota(const std::string& root, bool v2) {
  Mount mount;
  std::string path;
  if (!findMount(root, v2, mount) || !findPath(root, v2, path)) return 0;
  // Without a cgroup namespace the path starts with the mounted cgroup's own; with one it may lie outside ("/../..").
  if (mount.root != "/" && path.compare(0, mount.root.size(), mount.root) == 0) path.erase(0, mount.root.size());
  if (path.find("..") != std::string::npos) path.clear();
  double tightest = 0;
  for (;;) {
    if (path == "/") path.clear();
    const double quota = folderQuota(root + mount.point + path, v2);
    if (quota > 0 && (tightest == 0 || quota < tightest)) tightest = quota;
    if (path.empty()) return tightest;
    path.erase(path.find_last_of('/') == std::string::npos ? 0 : path.find_last_of('/'));
  }
}

int availableProcessors() {
#if defined(__linux__)
  // Grown until the kernel's mask fits: EINVAL says it did not.
  for (int capacity = 1024; capacity <= 1 << 20; capacity *= 2) {
    cpu_set_t* set = CPU_ALLOC(static_cast<size_t>(capacity));
    if (set == nullptr) break;
    const size_t bytes = CPU_ALLOC_SIZE(static_cast<size_t>(capacity));
    const int failed = sched_getaffinity(0, bytes, set);
    const int error = errno;
    const int count = failed ? 0 : CPU_COUNT_S(bytes, set);
    CPU_FREE(set);
    if (count > 0) return count;
    if (error != EINVAL) break;
  }
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace

double cgroupQuota(const char* root) {
  const double v2 = hierarchyQuota(root, true), v1 = hierarchyQuota(root, false);
  if (v1 == 0 || v2 == 0) return std::max(v1, v2);
  return std::min(v1, v2);
}

ThreadLimits chooseThreads(int processors, double quota, const char* forced) {
  ThreadLimits limits = {1, processors, true, {0}};
  if (forced != nullptr && *forced == '\0') forced = nullptr;
  if (forced != nullptr) {
    char* end = nullptr;
    const long value = std::strtol(forced, &end, 10);
    const bool digits = std::strspn(forced, "0123456789") == std::strlen(forced);
    if (!digits || *end != '\0' || value < 1 || value > kMaxThreads) {
      limits.valid = false;
      std::snprintf(limits.reason, sizeof limits.reason, "GQA_THREADS=%.32s is not a whole number from 1 to %d", forced,
                    kMaxThreads);
      return limits;
    }
    limits.threads = static_cast<int>(value);
  } else {
    limits.threads = processors;
    if (quota > 0 && quota < processors) limits.threads = std::max(1, static_cast<int>(quota));
  }
  char quotaText[32] = "none";
  if (quota > 0) std::snprintf(quotaText, sizeof quotaText, "%.1f", quota);
  std::snprintf(limits.reason, sizeof limits.reason, "%d: cgroup quota %s, affinity %d, GQA_THREADS %s", limits.threads,
                quotaText, processors, forced != nullptr ? forced : "unset");
  return limits;
}

const ThreadLimits& threadLimits() {
  static const ThreadLimits limits = chooseThreads(availableProcessors(), cgroupQuota(""), std::getenv("GQA_THREADS"));
  return limits;
}

}  // namespace gqa
