// A checksum against damage, not against malice, at the speed of memory: XXH64 (seed 0) of every MiB, on all threads,
// and XXH64 of those numbers in their order.
#include <cstring>
#include <vector>

#include "runtime.h"

namespace gqa {
namespace {

constexpr int64_t kChunkBytes = int64_t{1} << 20;
constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87, kPrime2 = 0xC2B2AE3D27D4EB4F, kPrime3 = 0x165667B19E3779F9,
                   kPrime4 = 0x85EBCA77C2B2AE63, kPrime5 = 0x27D4EB2F165667C5;

inline uint64_t rotate(uint64_t x, int bits) { return x << bits | x >> (64 - bits); }

// Little-endian, as every system that Node runs on.
template <class T>
inline uint64_t word(const char* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

inline uint64_t mix(uint64_t state, uint64_t input) { return rotate(state + input * kPrime2, 31) * kPrime1; }

inline uint64_t join(uint64_t hash, uint64_t state) { return (hash ^ mix(0, state)) * kPrime1 + kPrime4; }

uint64_t xxh64(const char* p, int64_t bytes) {
  const char* const end = p + bytes;
  uint64_t hash = kPrime5;
  if (bytes >= 32) {
    uint64_t a = kPrime1 + kPrime2, b = kPrime2, c = 0, d = uint64_t{0} - kPrime1;
    for (; end - p >= 32; p += 32) {
      a = mix(a, word<uint64_t>(p));
      b = mix(b, word<uint64_t>(p + 8));
      c = mix(c, word<uint64_t>(p + 16));
      d = mix(d, word<uint64_t>(p + 24));
    }
    hash = rotate(a, 1) + rotate(b, 7) + rotate(c, 12) + rotate(d, 18);
    hash = join(join(join(join(hash, a), b), c), d);
  }
  hash += static_cast<uint64_t>(bytes);
  for (; end - p >= 8; p += 8) hash = rotate(hash ^ mix(0, word<uint64_t>(p)), 27) * kPrime1 + kPrime4;
  if (end - p >= 4) {
    hash = rotate(hash ^ word<uint32_t>(p) * kPrime1, 23) * kPrime2 + kPrime3;
    p += 4;
  }
  for (; p < end; ++p) hash = rotate(hash ^ word<uint8_t>(p) * kPrime5, 11) * kPrime1;
  hash = (hash ^ hash >> 33) * kPrime2;
  hash = (hash ^ hash >> 29) * kPrime3;
  return hash ^ hash >> 32;
}

struct Job {
  const char* base;
  int64_t bytes;
  uint64_t* sums;
};

void chunk(void* context, int64_t item) {
  const Job& job = *static_cast<Job*>(context);
  const int64_t from = item * kChunkBytes, left = job.bytes - from;
  job.sums[item] = xxh64(job.base + from, left < kChunkBytes ? left : kChunkBytes);
}

}  // namespace

uint64_t checksum(const void* data, int64_t bytes) {
  std::vector<uint64_t> sums(static_cast<size_t>((bytes + kChunkBytes - 1) / kChunkBytes));
  Job job = {static_cast<const char*>(data), bytes, sums.data()};
  parallelFor(static_cast<int64_t>(sums.size()), chunk, &job, nullptr);
  return xxh64(reinterpret_cast<const char*>(sums.data()), static_cast<int64_t>(sums.size() * sizeof(uint64_t)));
}

}  // namespace gqa
