// Pages and scratch: alignment, zeroes, growth, sizes that no machine has.
// g++ -std=c++17 -Inative test/native/memory.cc native/runtime/memory.cc -o memory -pthread
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string>
#include <thread>

#if defined(__linux__)
#include <fstream>
#include <unistd.h>
#endif

#include "checks.h"
#include "runtime/runtime.h"

using namespace gqa;

namespace {

bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 64 == 0; }

void pages() {
  for (const int64_t bytes :
       {int64_t{0}, int64_t{1}, int64_t{4096}, int64_t{100000}, int64_t{2} << 20, int64_t{5000001}}) {
    char* base = static_cast<char*>(allocatePages(bytes));
    CHECK(base != nullptr && aligned(base));
    bool zero = true;
    for (int64_t i = 0; i < bytes; i++) zero = zero && base[i] == 0;
    CHECK(zero);
    for (int64_t i = 0; i < bytes; i++) base[i] = 1;
    releasePages(base, bytes);
  }
  for (const int64_t bytes : {int64_t{-1}, int64_t{1} << 55, std::numeric_limits<int64_t>::max()}) {
    CHECK(allocatePages(bytes) == nullptr);
  }
  releasePages(nullptr, 0);
}

#if defined(__linux__)

// Bytes of this process that are in memory.
int64_t residentBytes() {
  std::ifstream file("/proc/self/statm");
  int64_t all = 0, resident = 0;
  file >> all >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

// The line "VmFlags: ..." of the mapping that starts at `base`; see proc(5), smaps.
std::string mappingFlags(const void* base) {
  char start[32];
  std::snprintf(start, sizeof start, "%lx-", static_cast<unsigned long>(reinterpret_cast<uintptr_t>(base)));
  std::ifstream file("/proc/self/smaps");
  bool found = false;
  for (std::string line; std::getline(file, line);) {
    if (line.compare(0, std::char_traits<char>::length(start), start) == 0) found = true;
    if (found && line.compare(0, 8, "VmFlags:") == 0) return line + " ";
  }
  return "";
}

// Nothing is in memory before it is written, and nothing after it is released.
void memoryComesAndGoes() {
  const int64_t bytes = int64_t{64} << 20, slack = int64_t{4} << 20;
  const int64_t before = residentBytes();
  char* base = static_cast<char*>(allocatePages(bytes));
  CHECK(base != nullptr && residentBytes() < before + slack);
  for (int64_t i = 0; i < bytes; i += 4096) base[i] = 1;
  CHECK(residentBytes() >= before + bytes - slack);
  releasePages(base, bytes);
  CHECK(residentBytes() < before + slack);
}

// Large pages are asked for where there is one to fill, and can be had: the start is a multiple of 2 MiB.
void largePages() {
  const bool offered = std::ifstream("/sys/kernel/mm/transparent_hugepage/enabled").good();
  for (const int64_t bytes : {int64_t{2} << 20, (int64_t{7} << 20) + 123}) {
    void* base = allocatePages(bytes);
    CHECK(base != nullptr && reinterpret_cast<uintptr_t>(base) % (uintptr_t{2} << 20) == 0);
    if (offered) CHECK(mappingFlags(base).find(" hg ") != std::string::npos);
    releasePages(base, bytes);
  }
  void* small = allocatePages(100000);
  CHECK(mappingFlags(small).find(" hg ") == std::string::npos);
  releasePages(small, 100000);
}

#else
void memoryComesAndGoes() {}
void largePages() {}
#endif

void scratch() {
  float* first = threadScratch(Scratch::task, 10);
  CHECK(first != nullptr && aligned(first));
  CHECK(threadScratch(Scratch::task, 5) == first);
  CHECK(threadScratch(Scratch::call, 10) != first);
  float* grown = threadScratch(Scratch::task, 1 << 20);
  CHECK(grown != nullptr && aligned(grown));
  grown[(1 << 20) - 1] = 1;
  CHECK(threadScratch(Scratch::task, 10) == grown);
  CHECK(threadScratch(Scratch::task, -1) == nullptr);
  CHECK(threadScratch(Scratch::task, std::numeric_limits<int64_t>::max()) == nullptr);
  CHECK(threadScratch(Scratch::task, 1000) != nullptr);
  float* other = nullptr;
  std::thread([&] { other = threadScratch(Scratch::task, 10); }).join();
  CHECK(other != nullptr && other != threadScratch(Scratch::task, 10));
}

}  // namespace

int main() {
  pages();
  memoryComesAndGoes();
  largePages();
  scratch();
  return reportChecks();
}
