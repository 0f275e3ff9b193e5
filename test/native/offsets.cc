// Offsets past 2^31 bytes and elements: a cache arena and tensors of more than 4 GiB, reserved but hardly touched.
// Built and run as guard.cc is. Needs address space, not memory.
#include "guarded.h"
#include "runtime/runtime.h"

#include <cmath>
#include <limits>

using namespace gqa;

namespace {

constexpr int64_t kHeadDim = 64, kBlockTokens = 64;
int passed = 0, failures = 0;

void check(bool good, const char* what) {
  good ? ++passed : ++failures;
  if (!good) fprintf(stderr, "%s\n", what);
}

// Zero pages that take memory only where they are written.
char* reserve(int64_t bytes) {
  void* base = mmap(nullptr, size_t(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    fprintf(stderr, "offsets: cannot reserve %lld bytes\n", (long long)bytes);
    exit(1);
  }
  return static_cast<char*>(base);
}

void expectNear(const char* what, double actual, double expected) {
  const bool near = std::fabs(actual - expected) <= 1e-5 * std::fmax(1, std::fabs(expected));
  if (!near) fprintf(stderr, "%g, not %g: ", actual, expected);
  check(near, what);
}

AttendProblem oneRow(const float* q, float* out, int64_t keyTokens, int64_t kvHeads) {
  AttendProblem p = {};
  p.q = q;
  p.out = out;
  p.batch = p.queryTokens = 1;
  p.keyTokens = keyTokens;
  p.heads = p.kvHeads = kvHeads;
  p.headDim = p.valueDim = kHeadDim;
  p.causal = true;
  p.window = std::numeric_limits<int64_t>::max();
  p.scale = 1;
  return p;
}

// Two heads of 100,000 blocks each, more than 3 GiB a head; the first and the last block of the table are used.
void farBlocks() {
  const int64_t blocks = 100000, kvHeads = 2, tokens = 3;
  const BlockLayout layout = {DType::f32, DType::f32, kHeadDim, kHeadDim, kBlockTokens};
  const int64_t bytes = kvHeads * blocks * layout.bytes();
  check(bytes >= int64_t(1) << 32, "an arena beyond 4 GiB");
  const ArenaView arena = {reserve(bytes), layout, kvHeads, blocks};
  std::vector<float> k(size_t(tokens * kvHeads * kHeadDim)), v(k.size());
  std::vector<float> q(size_t(kvHeads * kHeadDim), 0.f), out(q.size(), -1.f);
  for (const int32_t id : {int32_t(0), int32_t(blocks - 1)}) {
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t h = 0; h < kvHeads; ++h)
        for (int64_t d = 0; d < kHeadDim; ++d) v[size_t((t * kvHeads + h) * kHeadDim + d)] = float(id + 10 * h + t);
    StoreProblem store = {};
    store.arena = arena;
    store.table = {&id, 0, 1};
    store.k = k.data();
    store.v = v.data();
    store.count = tokens;
    gqa::store(store);
    AttendProblem p = oneRow(q.data(), out.data(), tokens, kvHeads);
    p.arena = arena;
    p.table = store.table;
    check(attend(p, nullptr) == Status::ok, "attend");
    // All scores are 0: the mean of the tokens.
    for (int64_t h = 0; h < kvHeads; ++h)
      expectNear("far block", out[size_t(h * kHeadDim)], double(id) + double(10 * h) + 1);
  }
  munmap(arena.base, size_t(bytes));
}

// Absolute positions beyond 2^31 on a small ring.
void farPositions() {
  const int64_t position = (int64_t(1) << 33) + 7, ringBlocks = 3, tokens = 100;
  const BlockLayout layout = {DType::f32, DType::f32, kHeadDim, kHeadDim, kBlockTokens};
  const ArenaView arena = {reserve(ringBlocks * layout.bytes()), layout, 1, ringBlocks};
  const int32_t ids[] = {2, 0, 1};
  std::vector<float> k(size_t(tokens * kHeadDim)), v(k.size()), q(size_t(kHeadDim), 0.f), out(q.size(), -1.f);
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t d = 0; d < kHeadDim; ++d) v[size_t(t * kHeadDim + d)] = float(t);
  StoreProblem store = {};
  store.arena = arena;
  store.table = {ids, 0, ringBlocks};
  store.k = k.data();
  store.v = v.data();
  store.count = tokens;
  store.position = position;
  gqa::store(store);
  AttendProblem p = oneRow(q.data(), out.data(), position + tokens, 1);
  p.arena = arena;
  p.table = store.table;
  p.window = 11;
  check(attend(p, nullptr) == Status::ok, "attend");
  expectNear("far position", out[5], double(tokens - 6));
  munmap(arena.base, size_t(ringBlocks * layout.bytes()));
}

// Tensors k and v of 2^25 + 5 tokens, 8 GiB each; a window and sink tokens leave their ends to be read.
void farTokens() {
  const int64_t tokens = (int64_t(1) << 25) + 5, bytes = tokens * kHeadDim * 4, window = 4, sinks = 1;
  char* k = reserve(bytes);
  char* v = reserve(bytes);
  float* values = reinterpret_cast<float*>(v);
  for (int64_t d = 0; d < kHeadDim; ++d) {
    values[d] = 1000;
    for (int64_t t = tokens - window; t < tokens; ++t) values[t * kHeadDim + d] = 1;
  }
  std::vector<float> q(size_t(kHeadDim), 0.f), out(q.size(), -1.f);
  AttendProblem p = oneRow(q.data(), out.data(), tokens, 1);
  p.k = k;
  p.v = v;
  p.window = window;
  p.sinkTokens = sinks;
  check(attend(p, nullptr) == Status::ok, "attend");
  expectNear("far token", out[63], (1000.0 + 4) / 5);
  munmap(k, size_t(bytes));
  munmap(v, size_t(bytes));
}

}  // namespace

int main() {
  test::catchFaults();
  if (opTable() == nullptr) return fprintf(stderr, "no such instruction set: %s\n", dispatchReason()), 1;
  farBlocks();
  farPositions();
  farTokens();
  printf("offsets, %s\n%d passed, %d failed\n", opTable()->isa, passed, failures);
  return failures == 0 ? 0 : 1;
}
