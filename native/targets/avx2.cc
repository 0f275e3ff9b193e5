#include "../simd/avx2.h"
#include "table.h"
#include "tables.h"

namespace gqa {
GQA_OP_TABLE(avx2)
}
