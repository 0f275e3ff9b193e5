#include "storage.h"

#include "../runtime/runtime.h"
#include "arguments.h"

namespace gqa {
namespace {

// Sizes are estimated in double first, which cannot wrap around; beyond this no allocation succeeds.
constexpr double kMaxBytes = 72057594037927936.0;  // 2^56
constexpr int64_t kMaxHeadDim = int64_t{1} << 20;

void finalize(Napi::Env env, Storage* storage) {
  if (storage->pages) Napi::MemoryManagement::AdjustExternalMemory(env, -storage->told);
  delete storage;
}

// The handle of new storage; undefined, with the status set, when memory is short.
Napi::Value wrap(Napi::Env env, Arguments& arguments, Storage storage, int64_t bytes, double estimate) {
  if (estimate < kMaxBytes) storage.pages = Pages::allocate(bytes);
  if (!storage.pages) {
    arguments.report(status::outOfMemory);
    return env.Undefined();
  }
  if (storage.kind == Storage::Kind::arena) {
    storage.arena.base = storage.pages->base();
  } else {
    storage.weights.base = storage.pages->base();
  }
  return wrapStorage(env, storage, bytes);
}

}  // namespace

std::shared_ptr<Pages> Pages::allocate(int64_t bytes) {
  FileMapping memory;
  memory.base = static_cast<char*>(allocatePages(bytes));
  memory.bytes = bytes;
  return memory.base == nullptr ? nullptr : ofFile(memory);
}

std::shared_ptr<Pages> Pages::ofFile(const FileMapping& mapping) { return std::shared_ptr<Pages>(new Pages(mapping)); }

Pages::~Pages() { unmapFile(mapping_); }

Napi::Value wrapStorage(Napi::Env env, Storage storage, int64_t bytes) {
  storage.told = bytes;
  Napi::MemoryManagement::AdjustExternalMemory(env, bytes);
  return Napi::External<Storage>::New(env, new Storage(storage), finalize);
}

Napi::Value createArenaCall(const Napi::CallbackInfo& info) {
  using namespace arena_slot;
  Arguments a(info);
  Storage storage = {Storage::Kind::arena, nullptr, {}, {}, 0};
  ArenaView& arena = storage.arena;
  arena.layout = {a.cacheType(keyDtype), a.cacheType(valueDtype), a.count(headDim),    a.count(valueDim),
                  a.count(blockTokens),  a.flag(rotateKeys),      a.flag(rotateValues)};
  arena.kvHeads = a.count(kvHeads);
  arena.blocks = a.count(blocks);
  const BlockLayout& layout = arena.layout;
  a.require(layout.headDim <= kMaxHeadDim && layout.valueDim <= kMaxHeadDim, 0);
  a.require(layout.blockTokens > 0 && layout.blockTokens % kLanes == 0 && layout.blockTokens <= kMaxBlockTokens, 0);
  const bool floats = !isQuantised(layout.keyType) && !isQuantised(layout.valueType);
  a.require(floats || layout.blockTokens == kMaxBlockTokens, 0);
  if (!a.accepted()) return info.Env().Undefined();
  const double estimate =
      static_cast<double>(arena.kvHeads) * static_cast<double>(arena.blocks) * static_cast<double>(layout.bytes());
  const int64_t size = estimate < kMaxBytes ? arena.kvHeads * arena.blocks * layout.bytes() : 0;
  a.give(bytes, static_cast<double>(size));
  return wrap(info.Env(), a, storage, size, estimate);
}

Napi::Value packWeightsCall(const Napi::CallbackInfo& info) {
  using namespace weights_slot;
  Arguments a(info);
  Storage storage = {Storage::Kind::weights, nullptr, {}, {}, 0};
  WeightsView& weights = storage.weights;
  weights.dtype = a.weightType(dtype);
  weights.rows = a.count(rows);
  weights.columns = a.count(columns);
  const double elements = a.number(rows) * a.number(columns);
  const void* weight = nullptr;
  if (isQuantised(weights.dtype)) {
    a.require(weights.columns % kGroup == 0, 0);
    weight = a.array<uint8_t>(0, elements / kGroup * static_cast<double>(blockBytes(weights.dtype)));
  } else {
    weight = a.floats(0, weights.dtype, elements);
  }
  if (!a.accepted()) return info.Env().Undefined();
  // A panel more in each direction than the weights have.
  const double estimate = (a.number(rows) + kPanelLanes) * (a.number(columns) + kPanelLanes) * sizeof(float);
  const int64_t size = estimate < kMaxBytes ? weights.bytes() : 0;
  a.give(bytes, static_cast<double>(size));
  const Napi::Value handle = wrap(info.Env(), a, storage, size, estimate);
  if (!handle.IsUndefined()) packWeights(handle.As<Napi::External<Storage>>().Data()->weights, weight, weights.dtype);
  return handle;
}

// The memory goes back at once, or with the last async call that uses it.
void releaseCall(const Napi::CallbackInfo& info) {
  Storage* storage = info[0].As<Napi::External<Storage>>().Data();
  if (!storage->pages) return;
  Napi::MemoryManagement::AdjustExternalMemory(info.Env(), -storage->told);
  storage->pages.reset();
}

}  // namespace gqa
