#include "../simd/avx512.h"
#include "table.h"
#include "tables.h"

namespace gqa {
GQA_OP_TABLE(avx512bf16)
}
