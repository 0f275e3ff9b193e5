// Prefetch is decided once, GQA_PREFETCH decides it for all, and no result depends on it.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <limits>
#include <vector>

#include "checks.h"
#include "runtime/runtime.h"

using namespace gqa;

namespace {

constexpr int64_t kHeads = 4, kHeadDim = 64, kTokens = 8192;
constexpr int64_t kLarge = int64_t{1} << 24, kSmall = 1000;
using Output = float[kHeads * kHeadDim];

// Decode over 4 MiB of keys and values.
void decode(float* out) {
  std::vector<float> q(kHeads * kHeadDim), k(kTokens * kHeadDim), v(k.size());
  for (size_t i = 0; i < q.size(); ++i) q[i] = float(i % 7) - 3;
  for (size_t i = 0; i < k.size(); ++i) k[i] = float(i % 11) * 0.1f, v[i] = float(i % 13) - 6;
  AttendProblem p = {};
  p.q = q.data();
  p.k = k.data();
  p.v = v.data();
  p.out = out;
  p.batch = p.queryTokens = p.kvHeads = 1;
  p.heads = kHeads;
  p.keyTokens = kTokens;
  p.headDim = p.valueDim = kHeadDim;
  p.causal = true;
  p.window = std::numeric_limits<int64_t>::max();
  p.scale = 0.1f;
  CHECK(attend(p, nullptr) == Status::ok);
}

void chosen(const char* setting) {
  if (setting != nullptr) {
    for (const int64_t bytes : {kSmall, kLarge}) CHECK((prefetchFor(bytes) != Prefetch::off) == (*setting == '1'));
  } else {
    const Prefetch first = prefetchFor(kLarge);
    for (int i = 0; i < 100; ++i) CHECK(prefetchFor(kLarge) == first);
  }
}

// In a process of its own, for the choice is made once; false where something failed there.
bool runWith(const char* setting, Output& out) {
  int ends[2];
  if (pipe(ends) != 0) return false;
  const pid_t child = fork();
  if (child == 0) {
    if (setting != nullptr) {
      setenv("GQA_PREFETCH", setting, 1);
    } else {
      unsetenv("GQA_PREFETCH");
    }
    Output result = {};
    chosen(setting);
    decode(result);
    const bool sent = write(ends[1], result, sizeof result) == sizeof result;
    _exit(sent && checksFailed == 0 ? 0 : 1);
  }
  close(ends[1]);
  const bool received = read(ends[0], out, sizeof out) == sizeof out;
  close(ends[0]);
  int status = 1;
  return child > 0 && waitpid(child, &status, 0) == child && status == 0 && received;
}

}  // namespace

int main() {
  Output measured, with, without;
  CHECK(runWith(nullptr, measured));
  CHECK(runWith("1", with));
  CHECK(runWith("0", without));
  CHECK(std::memcmp(measured, with, sizeof with) == 0);
  CHECK(std::memcmp(measured, without, sizeof without) == 0);
  return reportChecks();
}
