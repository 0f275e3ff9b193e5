// The addon's exports; lib/backend/addon.ts gives their types.
#include "attend.h"
#include "blocks.h"
#include "environment.h"
#include "information.h"
#include "mapping.h"
#include "operations.h"
#include "storage.h"
#include "training.h"

namespace gqa {

Napi::Object exportAll(Napi::Env env, Napi::Object exports) {
  const Exporter exporter(env, exports);
  exporter.cold("info", informationCall);
  exporter.cold("threads", threadsCall);
  exporter.cold("limitThreads", limitThreadsCall);
  exporter.cold("createArena", createArenaCall);
  exporter.cold("packWeights", packWeightsCall);
  exporter.cold("mapFile", mapFileCall);
  exporter.cold("mappedWeights", mappedWeightsCall);
  exporter.cold("readWeights", readWeightsCall);
  exporter.cold("checksumWeights", checksumWeightsCall);
  exporter.cold("release", releaseCall);
  exporter.cold("merge", mergeCall);
  exporter.cold("probeRead", probeReadCall);
  exporter.cold("probeFma", probeFmaCall);
  exporter.cold("probeDot", probeDotCall);
  exporter.cold("probeTiles", probeTilesCall);
  exporter.cold("probeWake", probeWakeCall);
  exporter.hot("store", storeCall);
  exporter.hot("copyBlock", copyBlockCall);
  exporter.hot("moveTokens", moveTokensCall);
  exporter.hot("readBlock", readBlockCall);
  exporter.hot("writeBlock", writeBlockCall);
  exporter.hot("attend", attendCall);
  exporter.hot("attendAsync", attendAsyncCall);
  exporter.hot("attendStep", attendStepCall);
  exporter.hot("linear", linearCall);
  exporter.hot("gather", gatherCall);
  exporter.hot("rmsNorm", rmsNormCall);
  exporter.hot("layerNorm", layerNormCall);
  exporter.hot("rope", ropeCall);
  exporter.hot("activate", activateCall);
  exporter.hot("add", addCall);
  exporter.hot("convert", convertCall);
  exporter.hot("allBelow", allBelowCall);
  exporter.hot("attendBackward", attendBackwardCall);
  exporter.hot("transpose", transposeCall);
  exporter.hot("rmsNormBackward", rmsNormBackwardCall);
  exporter.hot("swigluBackward", swigluBackwardCall);
  exporter.hot("crossEntropy", crossEntropyCall);
  exporter.hot("adamW", adamWCall);
  exporter.hot("sumSquares", sumSquaresCall);
  return exports;
}

NODE_API_MODULE(gqa, exportAll)

}  // namespace gqa
