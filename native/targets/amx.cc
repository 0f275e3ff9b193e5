#include "../simd/avx512.h"
#if defined(GQA_TILE_MODEL)
#include "../simd/tiles.h"
#define GQA_TILES ModelTiles
#else
#include "../simd/amx.h"
#define GQA_TILES AmxTiles
#endif
#include "table.h"
#include "tables.h"

namespace gqa {
GQA_OP_TABLE(amx)
}
