// Tile registers: the portable model against naive sums, and where the CPU has AMX the instructions against the model,
// bit for bit. Rows and words beyond a tile's shape must be neither read nor written.
#include "simd/tiles.h"
#if defined(__x86_64__)
#include "simd/amx.h"
#endif
#include <random>
#include <vector>

#include "checks.h"
#include "runtime/runtime.h"

using namespace gqa;

namespace {

constexpr int64_t kRows = 2 * kTileSide;
// Words between rows of each operand: not those of a tile.
constexpr int64_t kStrideA = 19, kStrideB = 2 * kTileSide + 3, kStrideC = 2 * kTileSide + 5;
constexpr uint32_t kSignallingNaN = 0xff81ff81u;  // of f32 and of both bf16

uint32_t bitsOf(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
float floatOf(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
uint32_t pairOf(float even, float odd) { return bitsOf(even) >> 16 | (bitsOf(odd) & 0xffff0000u); }
float evenOf(uint32_t pair) { return floatOf(pair << 16); }
float oddOf(uint32_t pair) { return floatOf(pair & 0xffff0000u); }

// A[rows][depth], B[depth][2 tiles], C[rows][2 tiles], NaN wherever no tile reaches.
struct Operands {
  TileShape shape;
  std::vector<uint32_t> a, b, c;

  explicit Operands(const TileShape& s)
      : shape(s),
        a(size_t(kRows * kStrideA), kSignallingNaN),
        b(size_t(kTileSide * kStrideB), kSignallingNaN),
        c(size_t(kRows * kStrideC), kSignallingNaN) {}

  // Rows r of A and C that a tile holds.
  template <class F>
  void eachRow(F body) const {
    for (int64_t t = 0; t < 2; ++t)
      for (int64_t i = 0; i < shape.rows[t]; ++i) body(t * kTileSide + i);
  }
  template <class F>
  void fill(F value) {
    eachRow([&](int64_t r) {
      for (int64_t k = 0; k < shape.depth; ++k) a[size_t(r * kStrideA + k)] = pairOf(value(), value());
      for (int64_t n = 0; n < 2 * kTileSide; ++n) c[size_t(r * kStrideC + n)] = bitsOf(value());
    });
    for (int64_t k = 0; k < shape.depth; ++k)
      for (int64_t n = 0; n < 2 * kTileSide; ++n) b[size_t(k * kStrideB + n)] = pairOf(value(), value());
  }
};

// C += A B on a whole block of tiles; `zeroed`: C = A B.
template <class T>
std::vector<uint32_t> multiply(const Operands& x, bool zeroed = false) {
  std::vector<uint32_t> c = x.c;
  T t;
  t.configure(x.shape);
  t.template loadA<0>(x.a.data(), kStrideA * 4);
  t.template loadB<0>(x.b.data(), kStrideB * 4);
  t.template loadB<1>(x.b.data() + kTileSide, kStrideB * 4);
  t.template loadC<0, 0>(c.data(), kStrideC * 4);
  t.template loadC<0, 1>(c.data() + kTileSide, kStrideC * 4);
  if (zeroed) {
    t.template zeroC<0, 0>();
    t.template zeroC<0, 1>();
  }
  t.template dotBf16<0, 0>();
  t.template dotBf16<0, 1>();
  t.template storeC<0, 0>(c.data(), kStrideC * 4);
  t.template storeC<0, 1>(c.data() + kTileSide, kStrideC * 4);
  if (x.shape.rows[1] > 0) {
    uint32_t* lower = c.data() + kTileSide * kStrideC;
    t.template loadA<1>(x.a.data() + kTileSide * kStrideA, kStrideA * 4);
    t.template loadC<1, 0>(lower, kStrideC * 4);
    t.template loadC<1, 1>(lower + kTileSide, kStrideC * 4);
    if (zeroed) {
      t.template zeroC<1, 0>();
      t.template zeroC<1, 1>();
    }
    t.template dotBf16<1, 0>();
    t.template dotBf16<1, 1>();
    t.template storeC<1, 0>(lower, kStrideC * 4);
    t.template storeC<1, 1>(lower + kTileSide, kStrideC * 4);
  }
  t.release();
  return c;
}

template <class F>
void eachShape(F body) {
  for (const int64_t first : {1, 7, 16})
    for (const int64_t second : {0, 1, 9, 16})
      for (const int64_t depth : {1, 2, 11, 16}) body(TileShape{{first, second}, depth});
}

// Relative to the sum of magnitudes: each of the three sums of a product rounds to f32.
bool nearSum(const Operands& x, const std::vector<uint32_t>& c, int64_t r, int64_t n, bool zeroed) {
  const double start = zeroed ? 0 : double(floatOf(x.c[size_t(r * kStrideC + n)]));
  double sum = start, magnitude = std::fabs(start);
  for (int64_t k = 0; k < x.shape.depth; ++k) {
    const uint32_t a = x.a[size_t(r * kStrideA + k)], b = x.b[size_t(k * kStrideB + n)];
    const double even = double(evenOf(a)) * double(evenOf(b)), odd = double(oddOf(a)) * double(oddOf(b));
    sum += even + odd;
    magnitude += std::fabs(even) + std::fabs(odd);
  }
  return std::fabs(double(floatOf(c[size_t(r * kStrideC + n)])) - sum) <= 20 * std::ldexp(magnitude, -24);
}

void modelAgainstSums() {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  eachShape([&](const TileShape& shape) {
    Operands x(shape);
    x.fill([&] { return normal(random); });
    for (const bool zeroed : {false, true}) {
      std::vector<uint32_t> c = multiply<ModelTiles>(x, zeroed);
      bool near = true;
      x.eachRow([&](int64_t r) {
        for (int64_t n = 0; n < 2 * kTileSide; ++n) near = near && nearSum(x, c, r, n, zeroed);
        for (int64_t n = 0; n < 2 * kTileSide; ++n) c[size_t(r * kStrideC + n)] = kSignallingNaN;
      });
      CHECK(near);
      bool untouched = true;
      for (const uint32_t word : c) untouched = untouched && word == kSignallingNaN;
      CHECK(untouched);
    }
  });
}

// One row, one column of interest: what a depth of 2 makes of given numbers.
float productOf(float c, const float (&a)[4], const float (&b)[4]) {
  Operands x({{1, 0}, 2});
  x.fill([] { return 0.f; });
  for (int64_t k = 0; k < 2; ++k) {
    x.a[size_t(k)] = pairOf(a[2 * k], a[2 * k + 1]);
    x.b[size_t(k * kStrideB)] = pairOf(b[2 * k], b[2 * k + 1]);
  }
  x.c[0] = bitsOf(c);
  return floatOf(multiply<ModelTiles>(x)[0]);
}

void modelRounding() {
  const float big = 0x1p40f, infinity = INFINITY, denormal = 0x1p-127f, least = 0x1p-126f;
  CHECK(productOf(1, {1, 2, 4, 8}, {1, 1, 1, 1}) == 16);
  // Even and odd steps meet before C joins: in any other order 3 is lost.
  CHECK(productOf(3, {big, -big, 0, 0}, {1, 1, 1, 1}) == 3);
  CHECK(productOf(3, {big, 0, -big, 0}, {1, 1, 1, 1}) == 3);
  CHECK(productOf(0, {denormal, 0, 0, 0}, {big, 0, 0, 0}) == 0);
  CHECK(productOf(0, {least, 0, 0, 0}, {0.5f, 0, 0, 0}) == 0);
  CHECK(productOf(denormal, {0, 0, 0, 0}, {1, 1, 1, 1}) == 0);
  CHECK(productOf(0, {least, 0, 0, 0}, {2, 0, 0, 0}) == 2 * least);
  CHECK(productOf(0, {-infinity, 1, 0, 0}, {1, 1, 1, 1}) == -infinity);
  CHECK(std::isnan(productOf(0, {infinity, 0, 0, 0}, {0, 0, 0, 0})));
  CHECK(std::isnan(productOf(NAN, {1, 1, 1, 1}, {1, 1, 1, 1})));
}

#if defined(__x86_64__)
// Numbers of every kind that bits can say.
void instructionsAgainstModel() {
  std::mt19937 random(2);
  std::uniform_int_distribution<uint32_t> bits;
  std::normal_distribution<float> normal;
  eachShape([&](const TileShape& shape) {
    for (const bool wild : {false, true}) {
      Operands x(shape);
      x.fill([&] { return wild && random() % 8 == 0 ? floatOf(bits(random)) : normal(random); });
      const std::vector<uint32_t> model = multiply<ModelTiles>(x), amx = multiply<AmxTiles>(x);
      bool same = true;
      for (size_t i = 0; i < model.size(); ++i)
        same = same && (model[i] == amx[i] || (std::isnan(floatOf(model[i])) && std::isnan(floatOf(amx[i]))));
      CHECK(same);
    }
  });
}
#endif

}  // namespace

int main() {
  modelAgainstSums();
  modelRounding();
#if defined(__x86_64__)
  if (tilesGranted())
    instructionsAgainstModel();
  else
    std::printf("tiles: no AMX to be had, the instructions are not compared with their model\n");
#endif
  return reportChecks();
}
