// CPU detection: CPUID and XCR0 on x86; on 64-bit Arm HWCAP on Linux, sysctl on macOS, feature numbers on Windows.
#include "cpu.h"

#include <cstdint>
#include <cstdio>
#include <cstring>

#if defined(__x86_64__) || defined(_M_X64)
#define GQA_X86 1
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#elif defined(__aarch64__) || defined(_M_ARM64)
#define GQA_ARM64 1
#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(_WIN32)
#include <windows.h>
#endif
#endif

namespace gqa {
namespace {

#if GQA_X86

struct Registers {
  uint32_t eax, ebx, ecx, edx;
};

// All zero for a leaf this CPU does not have.
Registers cpuid(uint32_t leaf, uint32_t subleaf) {
  Registers r = {0, 0, 0, 0};
#if defined(_MSC_VER)
  int out[4];
  __cpuid(out, static_cast<int>(leaf & 0x80000000u));
  if (static_cast<uint32_t>(out[0]) < leaf) return r;
  __cpuidex(out, static_cast<int>(leaf), static_cast<int>(subleaf));
  r = {static_cast<uint32_t>(out[0]), static_cast<uint32_t>(out[1]), static_cast<uint32_t>(out[2]),
       static_cast<uint32_t>(out[3])};
#else
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
#endif
  return r;
}

uint64_t readXcr0() {
#if defined(_MSC_VER)
  return _xgetbv(0);
#else
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
#endif
}

bool bit(uint32_t word, int index) { return ((word >> index) & 1u) != 0; }

// Register state the system saves at a context switch (Intel SDM vol. 1, 13.3).
constexpr uint64_t kYmmState = 0x6;       // xmm, ymm
constexpr uint64_t kZmmState = 0xe6;      // and opmask, upper zmm, zmm16-31
constexpr uint64_t kTileState = 0x60000;  // tile configuration, tile data

void detect(CpuFeatures& f) {
  const Registers id = cpuid(0, 0);
  char vendor[13] = {};
  std::memcpy(vendor, &id.ebx, 4);
  std::memcpy(vendor + 4, &id.edx, 4);
  std::memcpy(vendor + 8, &id.ecx, 4);
  f.intel = std::strcmp(vendor, "GenuineIntel") == 0;
  f.amd = std::strcmp(vendor, "AuthenticAMD") == 0 || std::strcmp(vendor, "HygonGenuine") == 0;

  const Registers one = cpuid(1, 0);
  const bool osSavesState = bit(one.ecx, 27);
  if (!osSavesState) return;
  const uint64_t state = readXcr0();
  const Registers seven = cpuid(7, 0);
  const Registers sevenOne = cpuid(7, 1);

  if ((state & kYmmState) == kYmmState && bit(one.ecx, 28)) {
    f.fma = bit(one.ecx, 12);
    f.f16c = bit(one.ecx, 29);
    f.avx2 = bit(seven.ebx, 5);
    f.avxVnni = bit(sevenOne.eax, 4);
    f.clflushopt = bit(seven.ebx, 23);
  }
  if ((state & kZmmState) == kZmmState) {
    f.avx512f = bit(seven.ebx, 16);
    f.avx512dq = bit(seven.ebx, 17);
    f.avx512bw = bit(seven.ebx, 30);
    f.avx512vl = bit(seven.ebx, 31);
    f.avx512vnni = bit(seven.ecx, 11);
    f.avx512bf16 = bit(sevenOne.eax, 5);
    f.avx512fp16 = bit(seven.edx, 23);
  }
  if ((state & kTileState) == kTileState) {
    f.amxTile = bit(seven.edx, 24);
    f.amxBf16 = bit(seven.edx, 22);
    f.amxInt8 = bit(seven.edx, 25);
  }
}

#elif GQA_ARM64 && defined(__linux__)

void detect(CpuFeatures& f) {
  const unsigned long caps = getauxval(AT_HWCAP);
  const unsigned long caps2 = getauxval(AT_HWCAP2);
  f.neon = (caps >> 1) & 1;      // HWCAP_ASIMD
  f.fp16 = (caps >> 10) & 1;     // HWCAP_ASIMDHP
  f.dotprod = (caps >> 20) & 1;  // HWCAP_ASIMDDP
  f.i8mm = (caps2 >> 13) & 1;    // HWCAP2_I8MM
  f.bf16 = (caps2 >> 14) & 1;    // HWCAP2_BF16
}

#elif GQA_ARM64 && defined(__APPLE__)

bool sysctlFlag(const char* name) {
  int value = 0;
  size_t size = sizeof value;
  return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}

void detect(CpuFeatures& f) {
  f.neon = true;  // every Apple CPU has it
  f.fp16 = sysctlFlag("hw.optional.arm.FEAT_FP16");
  f.dotprod = sysctlFlag("hw.optional.arm.FEAT_DotProd");
  f.i8mm = sysctlFlag("hw.optional.arm.FEAT_I8MM");
  f.bf16 = sysctlFlag("hw.optional.arm.FEAT_BF16");
}

#elif GQA_ARM64 && defined(_WIN32)

void detect(CpuFeatures& f) {
  f.neon = true;  // Windows requires it
#if defined(PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE)
  f.dotprod = IsProcessorFeaturePresent(PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE);
#endif
#if defined(PF_ARM_V86_BF16_INSTRUCTIONS_AVAILABLE)
  f.bf16 = IsProcessorFeaturePresent(PF_ARM_V86_BF16_INSTRUCTIONS_AVAILABLE);
#endif
}

#elif GQA_ARM64

void detect(CpuFeatures& f) { f.neon = true; }  // part of the architecture

#else

void detect(CpuFeatures&) {}

#endif

void describe(CpuFeatures& f) {
  const struct {
    bool present;
    const char* name;
  } names[] = {
      {f.avx2, "avx2"},
      {f.fma, "fma"},
      {f.f16c, "f16c"},
      {f.avxVnni, "avx-vnni"},
      {f.avx512f, "avx512f"},
      {f.avx512bw, "avx512bw"},
      {f.avx512vl, "avx512vl"},
      {f.avx512dq, "avx512dq"},
      {f.avx512vnni, "avx512vnni"},
      {f.avx512bf16, "avx512bf16"},
      {f.avx512fp16, "avx512fp16"},
      {f.amxTile, "amx-tile"},
      {f.amxBf16, "amx-bf16"},
      {f.amxInt8, "amx-int8"},
      {f.neon, "neon"},
      {f.dotprod, "dotprod"},
      {f.fp16, "fp16"},
      {f.bf16, "bf16"},
      {f.i8mm, "i8mm"},
  };
  const char* vendor = f.intel ? "Intel" : f.amd ? "AMD" : "CPU";
  int used = std::snprintf(f.text, sizeof f.text, "%s:", vendor);
  bool any = false;
  for (const auto& entry : names) {
    if (!entry.present) continue;
    used += std::snprintf(f.text + used, sizeof f.text - static_cast<size_t>(used), " %s", entry.name);
    any = true;
  }
  if (!any) std::snprintf(f.text + used, sizeof f.text - static_cast<size_t>(used), " no SIMD feature found");
}

CpuFeatures detectAll() {
  CpuFeatures features = {};
  detect(features);
  describe(features);
  return features;
}

}  // namespace

const CpuFeatures& cpuFeatures() {
  static const CpuFeatures features = detectAll();
  return features;
}

}  // namespace gqa
