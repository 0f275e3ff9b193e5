// Which target's op table runs: the best that CPU and build share, or the one GQA_ISA names.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "../targets/tables.h"
#include "cpu.h"
#include "runtime.h"

namespace gqa {
namespace {

struct Target {
  const OpTable* table;
  bool (*runsOn)(const CpuFeatures&);
};

bool always(const CpuFeatures&) { return true; }
#if defined(__x86_64__) || defined(_M_X64)
bool hasAvx2(const CpuFeatures& f) { return f.avx2 && f.fma && f.f16c; }
bool hasAvx512(const CpuFeatures& f) { return hasAvx2(f) && f.avx512f && f.avx512bw && f.avx512vl && f.avx512dq; }
bool hasAvx512Bf16(const CpuFeatures& f) { return hasAvx512(f) && f.avx512vnni && f.avx512bf16; }
// Best first.
const Target kTargets[] = {
    {&avx512bf16Table, hasAvx512Bf16}, {&avx512Table, hasAvx512}, {&avx2Table, hasAvx2}, {&scalarTable, always}};
#elif defined(__aarch64__) || defined(_M_ARM64)
const Target kTargets[] = {{&neonTable, always}, {&scalarTable, always}};
#else
const Target kTargets[] = {{&scalarTable, always}};
#endif

struct Choice {
  const OpTable* table;
  char reason[512];
};

Choice choose() {
  Choice choice = {nullptr, {0}};
  const CpuFeatures& features = cpuFeatures();
  const char* forced = std::getenv("GQA_ISA");
  if (forced && !*forced) forced = nullptr;
  for (const Target& target : kTargets) {
    const bool wanted = !forced || std::strcmp(forced, target.table->isa) == 0;
    if (!wanted || !target.runsOn(features)) continue;
    choice.table = target.table;
    std::snprintf(choice.reason, sizeof choice.reason, "%s %s; CPU has %s", target.table->isa,
                  forced ? "forced by GQA_ISA" : "is the best this CPU runs", features.text);
    return choice;
  }
  char known[128] = {0};
  for (const Target& target : kTargets) {
    std::strncat(known, " ", sizeof known - std::strlen(known) - 1);
    std::strncat(known, target.table->isa, sizeof known - std::strlen(known) - 1);
  }
  std::snprintf(choice.reason, sizeof choice.reason, "GQA_ISA=%.32s cannot be had: this build knows%s; CPU has %s",
                forced ? forced : "", known, features.text);
  return choice;
}

const Choice& chosen() {
  static const Choice choice = choose();
  return choice;
}

}  // namespace

const OpTable* opTable() { return chosen().table; }
const char* dispatchReason() { return chosen().reason; }

}  // namespace gqa
