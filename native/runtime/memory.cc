// Pages for arenas and packed weights, and each thread's scratch.
#include <algorithm>
#include <cstdint>

#include "runtime.h"

#if defined(_WIN32)
#include <windows.h>
#else
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace gqa {
namespace {

// Transparent huge pages of x86-64 and of aarch64 with 4 KiB pages; elsewhere the advice is harmless.
constexpr int64_t kHugePage = int64_t{2} << 20;
// Far beyond any address space, small enough that rounding cannot overflow.
constexpr int64_t kMaxBytes = int64_t{1} << 56;

#if !defined(_WIN32)
int64_t mappedBytes(int64_t bytes) {
  static const int64_t page = static_cast<int64_t>(sysconf(_SC_PAGESIZE));
  return roundUp(std::max<int64_t>(bytes, 1), page);
}

char* map(int64_t bytes) {
  void* base = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return base == MAP_FAILED ? nullptr : static_cast<char*>(base);
}

void unmap(char* base, int64_t bytes) {
  if (bytes > 0) munmap(base, static_cast<size_t>(bytes));
}
#endif

// Grows to twice the size at least, so that a slowly growing need is met by few allocations.
class ScratchBuffer {
 public:
  ScratchBuffer() = default;
  ScratchBuffer(const ScratchBuffer&) = delete;
  ScratchBuffer& operator=(const ScratchBuffer&) = delete;
  ~ScratchBuffer() { releasePages(base_, bytes_); }

  float* reserve(int64_t floats) {
    if (floats < 0 || floats > kMaxBytes / 4) return nullptr;
    const int64_t bytes = floats * 4;
    if (bytes <= bytes_ && base_ != nullptr) return static_cast<float*>(base_);
    const int64_t grown = std::max(bytes, 2 * bytes_);
    releasePages(base_, bytes_);
    base_ = allocatePages(grown);
    bytes_ = base_ == nullptr ? 0 : grown;
    return static_cast<float*>(base_);
  }

 private:
  void* base_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace

#if defined(_WIN32)

void* allocatePages(int64_t bytes) {
  if (bytes < 0 || bytes > kMaxBytes) return nullptr;
  return VirtualAlloc(nullptr, static_cast<SIZE_T>(std::max<int64_t>(bytes, 1)), MEM_RESERVE | MEM_COMMIT,
                      PAGE_READWRITE);
}

void releasePages(void* base, int64_t) {
  if (base != nullptr) VirtualFree(base, 0, MEM_RELEASE);
}

#else

void* allocatePages(int64_t bytes) {
  if (bytes < 0 || bytes > kMaxBytes) return nullptr;
  const int64_t size = mappedBytes(bytes);
  if (bytes < kHugePage) return map(size);
  // A huge page must start at a multiple of its size: map one more and give back what is too much.
  char* base = map(size + kHugePage);
  if (base == nullptr) return nullptr;
  const int64_t head = -static_cast<int64_t>(reinterpret_cast<uintptr_t>(base)) & (kHugePage - 1);
  unmap(base, head);
  unmap(base + head + size, kHugePage - head);
#if defined(MADV_HUGEPAGE)
  madvise(base + head, static_cast<size_t>(size), MADV_HUGEPAGE);
#endif
  return base + head;
}

void releasePages(void* base, int64_t bytes) {
  if (base != nullptr) munmap(base, static_cast<size_t>(mappedBytes(bytes)));
}

#endif

float* threadScratch(Scratch slot, int64_t floats) {
  thread_local ScratchBuffer buffers[static_cast<int>(Scratch::count)];
  return buffers[static_cast<int>(slot)].reserve(floats);
}

}  // namespace gqa
