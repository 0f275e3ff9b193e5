// Files of packed weights: lib/backend/addon.ts has the types.
#pragma once
#include "node.h"

namespace gqa {

// mapFile(path): { handle, bytes, shared }, or why there is none.
Napi::Value mapFileCall(const Napi::CallbackInfo& info);
// mappedWeights(file, offset): weights that lie in a mapped file; they hold its pages. Numbers in the slots of
// packWeights; undefined where they do not fit the file.
Napi::Value mappedWeightsCall(const Napi::CallbackInfo& info);
// readWeights(weights, to, from): bytes [from, from + to.length) as they are packed.
void readWeightsCall(const Napi::CallbackInfo& info);
// checksumWeights(weights): of all their bytes, a BigInt.
Napi::Value checksumWeightsCall(const Napi::CallbackInfo& info);

}  // namespace gqa
