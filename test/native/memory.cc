// Pages and scratch: alignment, zeroes, growth, sizes that no machine has.
// g++ -std=c++17 -Inative test/native/memory.cc native/runtime/memory.cc -o memory -pthread
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <thread>

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
  scratch();
  return reportChecks();
}
