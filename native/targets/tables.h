// The op tables of the targets that this build holds; dispatch.cc picks one at run time.
#pragma once
#include "../ops.h"

namespace gqa {
extern const OpTable scalarTable;
#if defined(__x86_64__) || defined(_M_X64)
extern const OpTable avx2Table;
extern const OpTable avx512Table;
extern const OpTable avx512bf16Table;
#elif defined(__aarch64__) || defined(_M_ARM64)
extern const OpTable neonTable;
#endif
}  // namespace gqa
