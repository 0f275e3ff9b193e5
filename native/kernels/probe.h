// What the machine can do, for the benchmark's roofline: reading memory, and multiply-adds from registers.
#pragma once

namespace gqa {
namespace {

volatile float keep;  // a result nobody reads, so that the loops above it are not removed

// 4 streams: pages enough in flight for a memory that needs several, few enough for one that 8 slow down by a tenth.
void probeReadBytes(const void* data, int64_t bytes) {
  constexpr int64_t kStreams = 4;
  const int64_t stride = bytes / kStreams / 64 * 64;
  const char* base = static_cast<const char*>(data);
  Vec seen[kStreams];
  for (int s = 0; s < kStreams; ++s) seen[s] = zero();
  for (int64_t i = 0; i + 64 <= stride; i += 64)
#pragma GCC unroll 4
    for (int s = 0; s < kStreams; ++s)
      seen[s] = max(load(reinterpret_cast<const float*>(base + s * stride + i)), seen[s]);
  float total = 0;
  for (int s = 0; s < kStreams; ++s) total += reduceMax(seen[s]);
  keep = total;
}

// Independent chains, enough to hide the latency of an instruction.
constexpr int kChains = kAccumulators < 12 ? kAccumulators : 12;

double probeMultiplyAdds(int64_t iterations) {
  Vec x[kChains];
  for (int c = 0; c < kChains; ++c) x[c] = splat(float(c));
  const Vec a = splat(0.999f), b = splat(0.001f);
  for (int64_t i = 0; i < iterations; ++i)
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) x[c] = fma(x[c], a, b);
  Vec total = zero();
  for (int c = 0; c < kChains; ++c) total = add(total, x[c]);
  keep = reduceAdd(total);
  return double(iterations) * kChains * kLanes * 2;
}

double probeBf16(int64_t iterations) {
  Vec x[kChains];
  for (int c = 0; c < kChains; ++c) x[c] = splat(float(c));
  // Pairs of 1 and of 1/4, which the compiler must not know: GCC 12 makes f16 of constant bf16 operands on Arm.
  const volatile int32_t ones = 0x3f803f80, quarters = 0x3e803e80;
  const IVec a = splatI(ones), b = splatI(quarters);
  for (int64_t i = 0; i < iterations; ++i)
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) x[c] = dotBf16(x[c], a, b);
  Vec total = zero();
  for (int c = 0; c < kChains; ++c) total = add(total, x[c]);
  keep = reduceAdd(total);
  return double(iterations) * kChains * kLanes * 4;
}

double probeInt8(int64_t iterations) {
  IVec x[kChains];
  for (int c = 0; c < kChains; ++c) x[c] = splatI(c);
  // The products cancel, so that no sum overflows however long this runs.
  const IVec a = splatI(0x01020102), b = splatI(0x02ff02ff);
  for (int64_t i = 0; i < iterations; ++i)
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) x[c] = dotBytes(x[c], a, b);
  Vec total = zero();
  for (int c = 0; c < kChains; ++c) total = add(total, toFloat(x[c]));
  keep = reduceAdd(total);
  return double(iterations) * kChains * kLanes * 8;
}

double probeDotProducts(DotKind kind, int64_t iterations) {
  if (kind == DotKind::bf16) return kDotBf16 ? probeBf16(iterations) : 0;
  return kDotBytes ? probeInt8(iterations) : 0;
}

}  // namespace
}  // namespace gqa
