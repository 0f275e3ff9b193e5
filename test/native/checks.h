// CHECK and the line of counts that .ci/run adds up, for the tests that need nothing else.
#pragma once
#include <atomic>
#include <cstdio>

inline std::atomic<int> checksPassed{0}, checksFailed{0};

#define CHECK(condition)                                                             \
  do {                                                                               \
    if (condition) {                                                                 \
      ++checksPassed;                                                                \
    } else {                                                                         \
      ++checksFailed;                                                                \
      std::fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
    }                                                                                \
  } while (false)

inline int reportChecks() {
  std::printf("%d passed, %d failed\n", checksPassed.load(), checksFailed.load());
  return checksFailed == 0 ? 0 : 1;
}
