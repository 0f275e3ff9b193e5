// Thread counts from cgroup files, affinity and GQA_THREADS, on made-up /proc and /sys trees.
// g++ -std=c++17 -Inative test/native/thread_limits.cc native/runtime/thread_limits.cc -o thread_limits -pthread
#include "runtime/thread_limits.h"

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "checks.h"

using namespace gqa;
namespace fs = std::filesystem;

namespace {

class Tree {
 public:
  Tree() {
    char name[] = "/tmp/gqa-cgroup-XXXXXX";
    if (mkdtemp(name) == nullptr) std::exit(1);
    root_ = name;
  }
  ~Tree() { fs::remove_all(root_); }

  Tree& file(const std::string& path, const std::string& text) {
    fs::create_directories(fs::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
    return *this;
  }
  Tree& v2(const std::string& mountRoot, const std::string& path) {
    return file("/proc/self/mountinfo", "24 1 0:22 / / rw - ext4 /dev/sda rw\n30 24 0:26 " + mountRoot +
                                            " /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n")
        .file("/proc/self/cgroup", "0::" + path + "\n");
  }
  Tree& v1(const std::string& path) {
    return file("/proc/self/mountinfo",
                "31 24 0:27 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
                "32 24 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n")
        .file("/proc/self/cgroup", "9:cpuset:/elsewhere\n4:cpu,cpuacct:" + path + "\n");
  }
  double quota() const { return cgroupQuota(root_.c_str()); }

 private:
  std::string root_;
};

void version2() {
  CHECK(Tree().quota() == 0);
  CHECK(Tree().v2("/", "/").quota() == 0);
  CHECK(Tree().v2("/", "/").file("/sys/fs/cgroup/cpu.max", "max 100000\n").quota() == 0);
  CHECK(Tree().v2("/", "/").file("/sys/fs/cgroup/cpu.max", "250000 100000\n").quota() == 2.5);
  // The tightest of the ancestors counts, and so does the mount's own root.
  CHECK(Tree()
            .v2("/", "/a/b/c")
            .file("/sys/fs/cgroup/a/cpu.max", "400000 100000\n")
            .file("/sys/fs/cgroup/a/b/cpu.max", "150000 100000\n")
            .file("/sys/fs/cgroup/a/b/c/cpu.max", "max 100000\n")
            .quota() == 1.5);
  CHECK(Tree().v2("/", "/a").file("/sys/fs/cgroup/cpu.max", "300000 100000\n").quota() == 3);
  // A container without a cgroup namespace sees the host's path, of which only its own part is mounted.
  CHECK(Tree().v2("/docker/x", "/docker/x/job").file("/sys/fs/cgroup/job/cpu.max", "50000 100000\n").quota() == 0.5);
  CHECK(Tree().v2("/", "/../../outside").file("/sys/fs/cgroup/cpu.max", "200000 100000\n").quota() == 2);
  CHECK(Tree().v2("/", "/").file("/sys/fs/cgroup/cpu.max", "garbage\n").quota() == 0);
}

void version1() {
  const std::string folder = "/sys/fs/cgroup/cpu,cpuacct";
  CHECK(Tree()
            .v1("/jobs/one")
            .file(folder + "/jobs/one/cpu.cfs_quota_us", "-1\n")
            .file(folder + "/jobs/one/cpu.cfs_period_us", "100000\n")
            .file(folder + "/jobs/cpu.cfs_quota_us", "350000\n")
            .file(folder + "/jobs/cpu.cfs_period_us", "100000\n")
            .quota() == 3.5);
  CHECK(Tree().v1("/").quota() == 0);
}

void choices() {
  CHECK(chooseThreads(8, 0, nullptr).threads == 8);
  CHECK(chooseThreads(8, 4, nullptr).threads == 4);
  CHECK(chooseThreads(8, 2.9, nullptr).threads == 2);
  CHECK(chooseThreads(8, 0.5, nullptr).threads == 1);
  CHECK(chooseThreads(2, 16, nullptr).threads == 2);
  CHECK(chooseThreads(2, 1, "6").threads == 6);
  CHECK(chooseThreads(2, 0, "").threads == 2);
  for (const char* bad : {"0", "-1", "two", "1.5", "4 ", " 4", "+4", "0x4", "99999999999999999999", "1025"}) {
    const ThreadLimits limits = chooseThreads(4, 0, bad);
    CHECK(!limits.valid && std::strstr(limits.reason, bad) != nullptr);
  }
  CHECK(std::strcmp(chooseThreads(8, 4, nullptr).reason, "4: cgroup quota 4.0, affinity 8, GQA_THREADS unset") == 0);
}

}  // namespace

int main() {
  version2();
  version1();
  choices();
  CHECK(threadLimits().threads >= 1 && threadLimits().processors >= 1);
  return reportChecks();
}
