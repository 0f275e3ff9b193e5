#include "../simd/scalar.h"
#include "table.h"
#include "tables.h"

namespace gqa {
GQA_OP_TABLE(scalar)
}
