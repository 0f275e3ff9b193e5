// The targets that this build holds, best first, each with what it asks of `cpu` (CpuFeatures); dispatch.cc picks one
// at run time. Their compiler flags are in x64.gyp and arm64.gyp.
#pragma once
#include "../ops.h"

// clang-format off
#if (defined(__x86_64__) || defined(_M_X64)) && !defined(GQA_SCALAR_ONLY)
#define GQA_TARGETS(target)                                                  \
  target(amx, cpu.runsAvx512Bf16() && tilesUsable())                         \
  target(avx512bf16, cpu.runsAvx512Bf16())                                   \
  target(avx512, cpu.runsAvx512())                                           \
  target(avx2, cpu.runsAvx2())                                               \
  target(scalar, true)
#elif (defined(__aarch64__) || defined(_M_ARM64)) && !defined(GQA_SCALAR_ONLY)
#define GQA_TARGETS(target)                                                  \
  target(neonbf16, cpu.dotprod && cpu.bf16)                                  \
  target(neondot, cpu.dotprod)                                               \
  target(neon, cpu.neon)                                                     \
  target(scalar, true)
#else
#define GQA_TARGETS(target) target(scalar, true)
#endif
// clang-format on

namespace gqa {

#define GQA_DECLARE_TABLE(name, runs) extern const OpTable name##Table;
GQA_TARGETS(GQA_DECLARE_TABLE)
#undef GQA_DECLARE_TABLE

}  // namespace gqa
