// Every kernel over arrays that end, or begin, at a forbidden page: results must be the bits of ordinary arrays.
//
// Built by CMake (-DGQA_NATIVE_TESTS=ON, target native_tests), with sanitizers too, or by hand from the root:
//   g++ -std=c++17 -ffp-contract=off -O2 -Inative test/native/guard.cc native/runtime/*.cc <objects of native/targets>
// Run once per instruction set: GQA_ISA=avx2 guard
#include "guarded.h"
#include "runtime/runtime.h"

#include <limits>

using namespace gqa;
using test::Edge;
using test::Guarded;
using test::Random;

namespace {

int cases = 0, failedCases = 0, lastFailed = 0;

// A case fails once, whatever is wrong with it.
void fail(const char* what) {
  fprintf(stderr, "%s: %s\n", test::currentCase, what);
  if (lastFailed == cases) return;
  lastFailed = cases;
  ++failedCases;
}

// Values of the dtype, the last bit patterns of every array included.
std::vector<char> randomArray(Random& random, DType type, int64_t count) {
  std::vector<float> values(size_t(count), 0.f);
  for (float& x : values) x = random.value();
  std::vector<char> bytes(size_t(count * elementBytes(type)));
  if (count > 0) convert(values.data(), DType::f32, bytes.data(), type, count);
  return bytes;
}

// GGUF blocks: any bits, but scales and minimums that are numbers.
std::vector<char> randomBlocks(Random& random, DType type, int64_t count) {
  std::vector<char> bytes(size_t(count * blockBytes(type)));
  for (char& b : bytes) b = char(random.bits());
  for (int64_t i = 0; i < count; ++i)
    for (int64_t header = 1; header < scaleBytes(type); header += 2)
      bytes[size_t(i * blockBytes(type) + header)] = 0x2c;
  return bytes;
}

std::vector<char> randomMask(Random& random, int64_t count) {
  std::vector<char> bytes(size_t(count), 0);
  for (char& b : bytes) b = char(random.bits() % 3);
  return bytes;
}

// An array in both places. `plain` is what the ordinary run uses.
struct Twin {
  std::vector<char> plain;
  Guarded guarded;
  Twin(std::vector<char> bytes, Edge edge) : plain(bytes), guarded(bytes.size(), edge) {
    memcpy(guarded.data(), plain.data(), plain.size());
  }
  const char* at(bool guard) const { return guard ? guarded.data() : plain.data(); }
  char* at(bool guard) { return guard ? guarded.data() : plain.data(); }
  void expectSame(const char* what) const {
    if (memcmp(plain.data(), guarded.data(), plain.size()) == 0) return;
    fail(what);
  }
};

const char* nameOf(DType t) {
  const char* names[] = {"f32", "f16", "bf16", "i8", "u8", "i32", "q8_0", "q4_0", "q4_1"};
  return names[static_cast<int>(t)];
}
const char* nameOf(Edge e) { return e == Edge::end ? "end" : "start"; }

template <class... Args>
void begin(const char* format, Args... args) {
  snprintf(test::currentCase, sizeof test::currentCase, format, args...);
  ++cases;
}

struct Shape {
  int64_t batch, queries, keys, kvHeads, group, headDim, valueDim;
};

AttendProblem problemOf(const Shape& s, DType type, Edge edge) {
  AttendProblem p = {};
  p.qType = p.outType = p.kvType = type;
  p.batch = s.batch;
  p.queryTokens = s.queries;
  p.keyTokens = s.keys;
  p.heads = s.kvHeads * s.group;
  p.kvHeads = s.kvHeads;
  p.headDim = s.headDim;
  p.valueDim = s.valueDim;
  p.window = std::numeric_limits<int64_t>::max();
  p.scale = 0.3f;
  p.fast = edge == Edge::end;
  return p;
}

// Feature sets: 0 none, 1 causal, 2 window and sinks, 3 mask and bias, 4 ALiBi, sink logits and softcap; from 2 on with
// statistics.
void attendTensors(const Shape& s, DType type, int features, Edge edge) {
  begin("attend %s B%d Tq%d Tk%d kv%d G%d D%d Dv%d features %d at the %s", nameOf(type), int(s.batch), int(s.queries),
        int(s.keys), int(s.kvHeads), int(s.group), int(s.headDim), int(s.valueDim), features, nameOf(edge));
  Random random{uint32_t(cases)};
  const int64_t heads = s.kvHeads * s.group, plane = s.batch * heads * s.queries * s.keys;
  const Twin q(randomArray(random, type, s.batch * s.queries * heads * s.headDim), edge);
  const Twin k(randomArray(random, type, s.batch * s.keys * s.kvHeads * s.headDim), edge);
  const Twin v(randomArray(random, type, s.batch * s.keys * s.kvHeads * s.valueDim), edge);
  const Twin mask(randomMask(random, plane), edge), bias(randomArray(random, DType::f32, plane), edge);
  const Twin slopes(randomArray(random, DType::f32, heads), edge), sinks(randomArray(random, DType::f32, heads), edge);
  Twin out(randomArray(random, type, s.batch * s.queries * heads * s.valueDim), edge);
  Twin lse(randomArray(random, DType::f32, s.batch * s.queries * heads), edge);
  Twin stats(randomArray(random, DType::f32, kStatistics * s.batch * s.queries * heads), edge);
  for (const bool guard : {false, true}) {
    AttendProblem p = problemOf(s, type, edge);
    p.q = q.at(guard);
    p.k = k.at(guard);
    p.v = v.at(guard);
    p.out = out.at(guard);
    p.lse = reinterpret_cast<float*>(lse.at(guard));
    p.causal = features != 0;
    if (features == 2) p.window = 5, p.sinkTokens = 3;
    if (features == 3) {
      p.mask = {reinterpret_cast<const uint8_t*>(mask.at(guard)), heads * s.queries * s.keys, s.queries * s.keys};
      p.bias = {reinterpret_cast<const float*>(bias.at(guard)), heads * s.queries * s.keys, s.queries * s.keys};
    }
    if (features == 4) {
      p.alibiSlopes = reinterpret_cast<const float*>(slopes.at(guard));
      p.sinkLogits = reinterpret_cast<const float*>(sinks.at(guard));
      p.softcap = 2;
    }
    if (features > 1) p.statistics = {reinterpret_cast<float*>(stats.at(guard)), s.batch * s.queries * heads, 2, 3};
    if (attend(p, nullptr) != Status::ok) fail("attend refused");
  }
  out.expectSame("out differs");
  lse.expectSame("lse differs");
  stats.expectSame("statistics differ");
}

// Tokens stored in two chunks into an arena that fills its pages to the last byte, then attended over.
void attendCache(const Shape& s, DType type, DType inputType, Edge edge) {
  begin("cache %s from %s T%d kv%d G%d D%d Dv%d at the %s", nameOf(type), nameOf(inputType), int(s.keys),
        int(s.kvHeads), int(s.group), int(s.headDim), int(s.valueDim), nameOf(edge));
  Random random{uint32_t(cases)};
  const int64_t heads = s.kvHeads * s.group, blockTokens = 32, blocks = roundUp(s.keys, blockTokens) / blockTokens;
  const BlockLayout layout = {type, type, s.headDim, s.valueDim, blockTokens};
  Twin arena(std::vector<char>(size_t(s.kvHeads * blocks * layout.bytes()) + 64, 0), edge);
  const Twin q(randomArray(random, inputType, s.queries * heads * s.headDim), edge);
  const Twin k(randomArray(random, inputType, s.keys * s.kvHeads * s.headDim), edge);
  const Twin v(randomArray(random, inputType, s.keys * s.kvHeads * s.valueDim), edge);
  Twin out(randomArray(random, inputType, s.queries * heads * s.valueDim), edge);
  std::vector<char> idBytes(size_t(blocks) * sizeof(int32_t));
  for (int64_t o = 0; o < blocks; ++o) {
    const int32_t id = int32_t(blocks - 1 - o);
    memcpy(idBytes.data() + o * int64_t(sizeof id), &id, sizeof id);
  }
  const Twin ids(idBytes, edge);
  for (const bool guard : {false, true}) {
    // The ordinary arena is aligned by hand; the guarded one lies so at the end of a page when the slack is in front.
    char* base = arena.at(guard);
    base += (64 - reinterpret_cast<uintptr_t>(base) % 64) % 64;
    if (guard && edge == Edge::end) base = arena.at(true) + 64;
    StoreProblem store = {};
    store.arena = {base, layout, s.kvHeads, blocks};
    store.table = {reinterpret_cast<const int32_t*>(ids.at(guard)), 0, blocks};
    store.k = k.at(guard);
    store.v = v.at(guard);
    store.type = inputType;
    store.count = s.keys / 2;
    gqa::store(store);
    store.from = store.position = s.keys / 2;
    store.count = s.keys - s.keys / 2;
    gqa::store(store);
    AttendProblem p = problemOf(s, inputType, edge);
    p.q = q.at(guard);
    p.out = out.at(guard);
    p.arena = store.arena;
    p.table = store.table;
    p.kvType = type;
    p.causal = true;
    if (attend(p, nullptr) != Status::ok) fail("attend refused");
  }
  out.expectSame("out differs");
}

// Arenas whose last byte is the last of a page: a block of floats is quantised, read as bytes, written back and
// attended over.
void quantisedBlock(const Shape& s, DType keyType, DType valueType, Edge edge) {
  begin("block of K %s and V %s, Tq%d G%d D%d Dv%d at the %s", nameOf(keyType), nameOf(valueType), int(s.queries),
        int(s.group), int(s.headDim), int(s.valueDim), nameOf(edge));
  Random random{uint32_t(cases)};
  const BlockLayout layout = {keyType, valueType, s.headDim, s.valueDim, kMaxBlockTokens, true, true};
  const BlockLayout floats = {DType::f16, DType::f16, s.headDim, s.valueDim, kMaxBlockTokens, true, true};
  Twin arena(std::vector<char>(size_t(layout.bytes()) + 64, 0), edge);
  Twin tail(std::vector<char>(size_t(floats.bytes()) + 64, 0), edge);
  Twin bytes(std::vector<char>(size_t(plainKeyBytes(layout) + plainValueBytes(layout)), 0), edge);
  const Twin q(randomArray(random, DType::f32, s.queries * s.group * s.headDim), edge);
  const Twin k(randomArray(random, DType::f32, kMaxBlockTokens * s.headDim), edge);
  const Twin v(randomArray(random, DType::f32, kMaxBlockTokens * s.valueDim), edge);
  Twin out(randomArray(random, DType::f32, s.queries * s.group * s.valueDim), edge);
  const int32_t id = 0;
  const auto aligned = [edge](Twin& t, bool guard) {
    if (guard && edge == Edge::end) return t.at(true) + 64;
    char* base = t.at(guard);
    return base + (64 - reinterpret_cast<uintptr_t>(base) % 64) % 64;
  };
  for (const bool guard : {false, true}) {
    const ArenaView from = {aligned(tail, guard), floats, 1, 1}, to = {aligned(arena, guard), layout, 1, 1};
    store({from, {&id, 0, 1}, k.at(guard), v.at(guard), DType::f32, 0, kMaxBlockTokens, 0});
    copyBlock({from, to, 0, 0});
    const BlockBytes block = {to, 0, reinterpret_cast<uint8_t*>(bytes.at(guard)), kMaxBlockTokens};
    readBlock(block);
    writeBlock(block);
    AttendProblem p = problemOf({1, s.queries, kMaxBlockTokens, 1, s.group, s.headDim, s.valueDim}, DType::f32, edge);
    p.q = q.at(guard);
    p.out = out.at(guard);
    p.arena = to;
    p.table = {&id, 0, 1};
    p.causal = true;
    if (attend(p, nullptr) != Status::ok) fail("attend refused");
  }
  bytes.expectSame("bytes differ");
  out.expectSame("out differs");
}

void linearLayer(int64_t rows, int64_t columns, int64_t tokens, DType type, Edge edge) {
  begin("linear %s %dx%d %d tokens at the %s", nameOf(type), int(rows), int(columns), int(tokens), nameOf(edge));
  Random random{uint32_t(cases)};
  WeightsView view = {nullptr, type, rows, columns};
  Twin packed(std::vector<char>(size_t(view.bytes()) + 64, 0), edge);
  const Twin weight(isQuantised(type) ? randomBlocks(random, type, rows * columns / kGroup)
                                      : randomArray(random, type, rows * columns),
                    edge);
  const Twin x(randomArray(random, DType::f32, tokens * columns), edge);
  const Twin bias(randomArray(random, DType::f32, rows), edge);
  Twin out(randomArray(random, DType::f32, tokens * rows), edge);
  for (const bool guard : {false, true}) {
    char* base = packed.at(guard);
    base += (64 - reinterpret_cast<uintptr_t>(base) % 64) % 64;
    if (guard && edge == Edge::end) base = packed.at(true) + 64;
    view.base = base;
    packWeights(view, weight.at(guard), type);
    LinearProblem p = {};
    p.x = reinterpret_cast<const float*>(x.at(guard));
    p.columns = columns;
    p.parts[0] = {view, reinterpret_cast<const float*>(bias.at(guard)), reinterpret_cast<float*>(out.at(guard))};
    p.partCount = 1;
    p.tokens = tokens;
    p.fast = edge == Edge::end;
    if (linear(p) != Status::ok) fail("linear refused");
  }
  out.expectSame("out differs");
}

void elementwise(int64_t count, Edge edge) {
  begin("elementwise of %d at the %s", int(count), nameOf(edge));
  Random random{uint32_t(cases)};
  const Twin x(randomArray(random, DType::f32, count), edge), y(randomArray(random, DType::f32, count), edge);
  Twin gates(x.plain, edge), sum(x.plain, edge), turned(x.plain, edge);
  Twin normed(x.plain, edge), layerNormed(x.plain, edge);
  const auto f = [](const Twin& t, bool guard) { return reinterpret_cast<const float*>(t.at(guard)); };
  for (const bool guard : {false, true}) {
    activate(ActivationFunction::gelu, f(x, guard), f(y, guard), reinterpret_cast<float*>(gates.at(guard)), count);
    add(reinterpret_cast<float*>(sum.at(guard)), f(y, guard), count);
    const Norm norm = {NormKind::rms, f(y, guard), nullptr, 1e-5f};
    normalise(f(x, guard), norm, reinterpret_cast<float*>(normed.at(guard)), 1, count);
    const Norm layerNorm = {NormKind::layer, f(y, guard), f(x, guard), 1e-5f};
    normalise(f(x, guard), layerNorm, reinterpret_cast<float*>(layerNormed.at(guard)), 1, count);
  }
  gates.expectSame("gates differ");
  sum.expectSame("add differs");
  normed.expectSame("rmsNorm differs");
  layerNormed.expectSame("layerNorm differs");
  for (const bool interleaved : {false, true}) {
    if (count % 2 != 0) break;
    const std::vector<char> angles(x.plain.begin(), x.plain.begin() + count / 2 * 4);
    const Twin cos(angles, edge), sin(angles, edge);
    for (const bool guard : {false, true}) {
      RopeProblem p = {
          reinterpret_cast<float*>(turned.at(guard)), f(cos, guard), f(sin, guard), 1, 1, count, count, interleaved};
      rope(p);
    }
    turned.expectSame("rope differs");
  }
  for (const DType type : {DType::f16, DType::bf16}) {
    Twin narrow(randomArray(random, type, count), edge), wide(x.plain, edge);
    for (const bool guard : {false, true}) {
      convert(x.at(guard), DType::f32, narrow.at(guard), type, count);
      convert(narrow.at(guard), type, wide.at(guard), DType::f32, count);
    }
    narrow.expectSame("narrow differs");
    wide.expectSame("wide differs");
  }
}

void mergeParts(int64_t rows, int64_t valueDim, DType type, Edge edge) {
  begin("merge %s %dx%d at the %s", nameOf(type), int(rows), int(valueDim), nameOf(edge));
  Random random{uint32_t(cases)};
  const Twin a(randomArray(random, type, rows * valueDim), edge), b(randomArray(random, type, rows * valueDim), edge);
  const Twin la(randomArray(random, DType::f32, rows), edge), lb(randomArray(random, DType::f32, rows), edge);
  Twin out(a.plain, edge), lse(la.plain, edge);
  for (const bool guard : {false, true}) {
    const void* outs[] = {a.at(guard), b.at(guard)};
    const float* lses[] = {reinterpret_cast<const float*>(la.at(guard)), reinterpret_cast<const float*>(lb.at(guard))};
    merge(outs, lses, 2, type, out.at(guard), reinterpret_cast<float*>(lse.at(guard)), rows, valueDim);
  }
  out.expectSame("out differs");
  lse.expectSame("lse differs");
}

void runAll(Edge edge) {
  const DType types[] = {DType::f32, DType::f16, DType::bf16};
  const Shape shapes[] = {{1, 1, 1, 1, 1, 1, 1},    {1, 1, 33, 1, 3, 17, 5},  {2, 3, 15, 2, 1, 3, 31},
                          {1, 2, 64, 1, 2, 16, 16}, {1, 1, 129, 2, 5, 33, 2}, {1, 19, 21, 1, 3, 31, 33},
                          {2, 9, 7, 1, 2, 40, 1},   {1, 67, 66, 1, 1, 2, 65}, {1, 1, 65, 1, 17, 127, 129}};
  for (const DType type : types) {
    for (const Shape& s : shapes) {
      for (int features = 0; features <= 4; ++features) attendTensors(s, type, features, edge);
      if (s.batch > 1 || s.keys < s.queries) continue;
      attendCache(s, type, type, edge);
      attendCache(s, type, DType::f32, edge);
    }
    for (const int64_t rows : {1, 5, 16, 17, 33})
      for (const int64_t columns : {1, 7, 16, 31, 64})
        for (const int64_t tokens : {1, 3, 19}) linearLayer(rows, columns, tokens, type, edge);
    for (const int64_t dim : {1, 5, 16, 33}) mergeParts(3, dim, type, edge);
  }
  for (const DType type : {DType::q8_0, DType::q4_1})
    for (const Shape& s : shapes) {
      if (s.queries > kMaxBlockTokens) continue;
      quantisedBlock(s, type, type, edge);
      quantisedBlock(s, type, DType::bf16, edge);
      quantisedBlock(s, DType::f32, type, edge);
    }
  for (const DType type : {DType::q8_0, DType::q4_0, DType::q4_1})
    for (const int64_t rows : {1, 17, 33, 130})
      for (const int64_t columns : {32, 96})
        for (const int64_t tokens : {1, 14, 103}) linearLayer(rows, columns, tokens, type, edge);
  for (const int64_t count : {1, 2, 3, 8, 15, 16, 17, 30, 33, 66}) elementwise(count, edge);
}

}  // namespace

int main() {
  test::catchFaults();
  if (opTable() == nullptr) return fprintf(stderr, "no such instruction set: %s\n", dispatchReason()), 1;
  runAll(Edge::end);
  runAll(Edge::start);
  printf("guard, %s\n%d passed, %d failed\n", opTable()->isa, cases - failedCases, failedCases);
  return failedCases == 0 ? 0 : 1;
}
