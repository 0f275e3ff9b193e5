// The operations of training over arrays that end, or begin, at a forbidden page: results must be the bits of ordinary
// arrays. Built and run as guard.cc is.
#include "guarded.h"
#include "runtime/training.h"

#include <limits>
#include <memory>

using namespace gqa;
using test::Edge;
using test::Guarded;
using test::Random;

namespace {

int cases = 0, failedCases = 0;

// Floats in both places; `at(true)` are the guarded ones.
class Twin {
 public:
  Twin(Random& random, int64_t count, Edge edge) : plain_(size_t(count)), guarded_(size_t(count) * 4, edge) {
    for (float& x : plain_) x = random.value();
    if (count > 0) memcpy(guarded_.data(), plain_.data(), plain_.size() * 4);
  }
  float* at(bool guard) { return guard ? reinterpret_cast<float*>(guarded_.data()) : plain_.data(); }
  bool same() const { return plain_.empty() || memcmp(plain_.data(), guarded_.data(), plain_.size() * 4) == 0; }

 private:
  std::vector<float> plain_;
  Guarded guarded_;
};

// The arrays of a case, and whether both runs left the same in them.
class Case {
 public:
  Case(Edge edge, const char* what, int64_t a, int64_t b, int64_t c) : edge_(edge), random_(uint32_t(++cases)) {
    snprintf(test::currentCase, sizeof test::currentCase, "%s %d %d %d at the %s", what, int(a), int(b), int(c),
             edge == Edge::end ? "end" : "start");
  }
  ~Case() {
    bool same = true;
    for (const auto& twin : twins_) same &= twin->same();
    if (!same) fail("results differ");
  }
  Twin& floats(int64_t count) { return *twins_.emplace_back(std::make_unique<Twin>(random_, count, edge_)); }
  static void fail(const char* what) {
    ++failedCases;
    fprintf(stderr, "%s: %s\n", test::currentCase, what);
  }

 private:
  Edge edge_;
  Random random_;
  std::vector<std::unique_ptr<Twin>> twins_;
};

struct Shape {
  int64_t batch, queries, keys, kvHeads, group, headDim, valueDim;
};

void backward(const Shape& s, int features, Edge edge) {
  Case c(edge, "attendBackward", s.queries, s.keys, s.headDim);
  const int64_t heads = s.kvHeads * s.group, rows = s.batch * s.queries * heads, keys = s.batch * s.keys * s.kvHeads;
  Twin &q = c.floats(rows * s.headDim), &k = c.floats(keys * s.headDim), &v = c.floats(keys * s.valueDim);
  Twin &out = c.floats(rows * s.valueDim), &lse = c.floats(rows), &gradOut = c.floats(rows * s.valueDim);
  Twin &gradQ = c.floats(rows * s.headDim), &gradK = c.floats(keys * s.headDim), &gradV = c.floats(keys * s.valueDim);
  for (const bool guard : {false, true}) {
    AttendBackwardProblem b = {};
    AttendProblem& p = b.forward;
    p.q = q.at(guard);
    p.k = k.at(guard);
    p.v = v.at(guard);
    p.out = out.at(guard);
    p.lse = lse.at(guard);
    p.batch = s.batch;
    p.queryTokens = s.queries;
    p.keyTokens = s.keys;
    p.heads = heads;
    p.kvHeads = s.kvHeads;
    p.headDim = s.headDim;
    p.valueDim = s.valueDim;
    p.causal = features > 0;
    p.window = features == 2 ? 9 : std::numeric_limits<int64_t>::max();
    p.sinkTokens = 3;
    p.scale = 0.3f;
    p.softcap = features == 2 ? 2 : 0;
    b.gradOut = gradOut.at(guard);
    b.gradQ = gradQ.at(guard);
    b.gradK = gradK.at(guard);
    b.gradV = gradV.at(guard);
    if (attendBackward(b) != Status::ok) Case::fail("refused");
  }
}

void transposed(int64_t rows, int64_t columns, Edge edge) {
  Case c(edge, "transpose", rows, columns, 0);
  Twin &x = c.floats(rows * columns), &out = c.floats(rows * columns);
  for (const bool guard : {false, true}) transpose(x.at(guard), out.at(guard), rows, columns);
}

// Of `count` elements in three rows.
void rowOperations(int64_t count, Edge edge) {
  constexpr int64_t kRows = 3;
  Case c(edge, "rows", count, 0, 0);
  Twin &x = c.floats(kRows * count), &y = c.floats(kRows * count), &z = c.floats(kRows * count);
  Twin &a = c.floats(kRows * count), &b = c.floats(kRows * count), &m = c.floats(kRows * count);
  Twin &weight = c.floats(count), &gradWeight = c.floats(count), &nll = c.floats(kRows), &kl = c.floats(kRows);
  const int32_t targets[kRows] = {0, int32_t(count - 1), -1};
  double sums[2];
  for (const bool guard : {false, true}) {
    const RmsNormBackwardProblem norm = {x.at(guard), weight.at(guard), y.at(guard), z.at(guard), count, 1e-5f};
    if (rmsNormBackward(norm, kRows, gradWeight.at(guard)) != Status::ok) Case::fail("refused");
    swigluBackward(x.at(guard), y.at(guard), z.at(guard), a.at(guard), b.at(guard), kRows * count);
    crossEntropy({a.at(guard), y.at(guard), targets, nll.at(guard), kl.at(guard), kRows, count, 0.5f, 0.1f});
    for (int64_t i = 0; i < kRows * count; ++i) b.at(guard)[i] *= b.at(guard)[i];  // a second moment
    adamW({x.at(guard), y.at(guard), m.at(guard), b.at(guard), kRows * count, 1, 0.1, 0.9, 0.99, 1e-8, 0.1, 0.1, 0.1});
    if (sumSquares(x.at(guard), kRows * count, &sums[guard]) != Status::ok) Case::fail("refused");
  }
  if (sums[0] != sums[1]) Case::fail("sums differ");
}

void runAll(Edge edge) {
  const Shape shapes[] = {{1, 1, 1, 1, 1, 1, 1},    {1, 3, 33, 1, 3, 17, 5},   {2, 9, 7, 1, 2, 40, 1},
                          {1, 67, 66, 2, 1, 2, 65}, {1, 80, 65, 1, 5, 33, 16}, {1, 0, 5, 1, 1, 3, 3}};
  for (const Shape& s : shapes)
    for (int features = 0; features <= 2; ++features) backward(s, features, edge);
  for (const int64_t rows : {1, 15, 33, 65})
    for (const int64_t columns : {1, 16, 17, 130}) transposed(rows, columns, edge);
  for (const int64_t count : {1, 2, 15, 16, 17, 33, 1030}) rowOperations(count, edge);
}

}  // namespace

int main() {
  test::catchFaults();
  if (opTable() == nullptr) return fprintf(stderr, "no such instruction set: %s\n", dispatchReason()), 1;
  runAll(Edge::end);
  runAll(Edge::start);
  printf("guard_training, %s\n%d passed, %d failed\n", opTable()->isa, cases - failedCases, failedCases);
  return failedCases == 0 ? 0 : 1;
}
