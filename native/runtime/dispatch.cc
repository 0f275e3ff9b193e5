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

#define GQA_ROW(name, runs) {&name##Table, [](const CpuFeatures& cpu) { return (void)cpu, runs; }},
const Target kTargets[] = {GQA_TARGETS(GQA_ROW)};
#undef GQA_ROW

struct Choice {
  const OpTable* table;
  char reason[512];
};

Choice choose() {
  Choice choice = {nullptr, {0}};
  const CpuFeatures& features = cpuFeatures();
  const char* forced = std::getenv("GQA_ISA");
  if (forced && !*forced) forced = nullptr;
  char known[128] = {0};
  for (const Target& target : kTargets) {
    std::strncat(known, " ", sizeof known - std::strlen(known) - 1);
    std::strncat(known, target.table->isa, sizeof known - std::strlen(known) - 1);
  }
  for (const Target& target : kTargets) {
    const bool wanted = !forced || std::strcmp(forced, target.table->isa) == 0;
    if (!wanted || !target.runsOn(features)) continue;
    choice.table = target.table;
    std::snprintf(choice.reason, sizeof choice.reason, "%s %s, this build knows%s; CPU has %s", target.table->isa,
                  forced ? "forced by GQA_ISA" : "is the best this CPU runs", known, features.text);
    return choice;
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
