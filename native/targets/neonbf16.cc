#include "../simd/neon.h"
#include "table.h"
#include "tables.h"

namespace gqa {
GQA_OP_TABLE(neonbf16)
}
