// Every kernel in terms of the vector type included before this file, and the table of them. Included once per target.
#pragma once
#include <cmath>
#include <cstring>
#include <type_traits>

#include "../ops_training.h"
#include "../simd/tiles.h"

// Tiles are what GQA_TILES says, the type that a target includes before this file; other targets have the model, which
// no kernel of theirs comes to use.
namespace gqa {
namespace {
#if defined(GQA_TILES)
constexpr bool kTiles = true;
using Tiles = GQA_TILES;
#else
constexpr bool kTiles = false;
using Tiles = ModelTiles;
#endif
}  // namespace
}  // namespace gqa

#include "../kernels/math.h"
#include "../kernels/activation_functions.h"
#include "../kernels/panel.h"
#include "../kernels/tile_products.h"
#include "../kernels/rows.h"
#include "../kernels/rotate.h"
#include "../kernels/pack.h"
#include "../kernels/quantise.h"
#include "../kernels/copy_block.h"
#include "../kernels/block_bytes.h"
#include "../kernels/statistics.h"
#include "../kernels/states.h"
#include "../kernels/scores.h"
#include "../kernels/key_blocks.h"
#include "../kernels/softmax.h"
#include "../kernels/observe.h"
#include "../kernels/products.h"
#include "../kernels/integer_query.h"
#include "../kernels/integer_products.h"
#include "../kernels/integer_weights.h"
#include "../kernels/quantised_tile.h"
#include "../kernels/tile_attend.h"
#include "../kernels/attend.h"
#include "../kernels/activations.h"
#include "../kernels/dots.h"
#include "../kernels/weights.h"
#include "../kernels/tile_linear.h"
#include "../kernels/linear.h"
#include "../kernels/elementwise.h"
#include "../kernels/probe.h"
#include "../kernels/strided_product.h"
#include "../kernels/attend_backward.h"
#include "../kernels/backward.h"
#include "../kernels/loss.h"
#include "../kernels/optimiser.h"

// clang-format off
#define GQA_OP_TABLE(name)                                                                         \
  const TrainingTable name##Training = {                                                           \
      attendBackwardFloats, attendBackwardTask, transposePart, rmsNormBackwardRows,                \
      swigluBackwardRow, crossEntropyRows, adamWRange, sumSquaresOf};                              \
  const OpTable name##Table = {                                                                    \
      #name, attendScratchFloats, attendTask, initStates, mergeStates, finishRows,                 \
      storeTokens, copyBlock, moveTokens, readBlock, writeBlock,                                   \
      packWeightVectors, unpackWeightRow, activationForm, prepareActivations,                      \
      linearVectors, normaliseRows, ropeTokens, activateRow, addRow, convertRow, allBelowRow,          \
      probeReadBytes, probeMultiplyAdds, probeDotProducts, &name##Training};
// clang-format on
