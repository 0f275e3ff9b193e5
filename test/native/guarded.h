// Arrays whose first or last byte touches a page that must not be touched: an access one element too far ends the
// program, and says in which case.
#pragma once
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

namespace test {

// What is being tested, for the message of a crash.
inline char currentCase[256] = "nothing yet";

inline void onFault(int signal) {
  static const char text[] = ": touched memory beyond an array in: ";
  const char* name = signal == SIGSEGV ? "SIGSEGV" : "SIGBUS";
  (void)!write(2, name, strlen(name));
  (void)!write(2, text, sizeof text - 1);
  (void)!write(2, currentCase, strlen(currentCase));
  (void)!write(2, "\n", 1);
  _exit(2);
}

inline void catchFaults() {
  signal(SIGSEGV, onFault);
  signal(SIGBUS, onFault);
}

enum class Edge { start, end };

// `bytes` bytes between two forbidden pages, next to one of them; the rest of the pages between holds NaN bits (0xff).
class Guarded {
 public:
  Guarded(size_t bytes, Edge edge) {
    const size_t page = size_t(sysconf(_SC_PAGESIZE)), inner = (bytes + page - 1) / page * page;
    size_ = inner + 2 * page;
    base_ = static_cast<char*>(mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base_ == MAP_FAILED) abort();
    memset(base_ + page, 0xff, inner);
    mprotect(base_, page, PROT_NONE);
    mprotect(base_ + page + inner, page, PROT_NONE);
    data_ = base_ + page + (edge == Edge::end ? inner - bytes : 0);
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded() { munmap(base_, size_); }
  char* data() const { return data_; }

 private:
  char* base_;
  char* data_;
  size_t size_;
};

// xorshift32
class Random {
 public:
  explicit Random(uint32_t seed) : state_(seed * 2654435761u + 1) {}
  uint32_t bits() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 17;
    return state_ ^= state_ << 5;
  }
  // Uniform in [-2, 2).
  float value() { return float(bits()) / 1073741824.f - 2; }

 private:
  uint32_t state_;
};

}  // namespace test
