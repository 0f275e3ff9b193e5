#include "blocks.h"

#include "arguments.h"
#include "block_table.h"

namespace gqa {
namespace {

bool holdsFloats(const BlockLayout& layout) { return !isQuantised(layout.keyType) && !isQuantised(layout.valueType); }

bool sameShape(const ArenaView& a, const ArenaView& b) {
  const BlockLayout &x = a.layout, &y = b.layout;
  return a.kvHeads == b.kvHeads && x.headDim == y.headDim && x.valueDim == y.valueDim &&
         x.blockTokens == y.blockTokens && x.rotateKeys == y.rotateKeys && x.rotateValues == y.rotateValues;
}

// readBlock and writeBlock(bytes, arena).
bool readBytes(Arguments& a, BlockBytes& p) {
  using namespace block_slot;
  enum : int { kBytes, kArena };
  p.id = a.count(id);
  p.tokens = a.count(tokens);
  if (const Storage* storage = a.storage(kArena, Storage::Kind::arena)) {
    p.arena = storage->arena;
    const BlockLayout& layout = p.arena.layout;
    const double perHead = static_cast<double>(plainKeyBytes(layout)) + static_cast<double>(plainValueBytes(layout));
    p.bytes = a.array<uint8_t>(kBytes, static_cast<double>(p.arena.kvHeads) * perHead);
    a.require(p.id < p.arena.blocks && p.tokens <= layout.blockTokens, kArena);
  }
  return a.accepted();
}

}  // namespace

napi_value storeCall(napi_env env, napi_callback_info info) {
  using namespace store_slot;
  enum : int { kKeys, kValues, kIds, kArena };
  Arguments a(env, info);
  StoreProblem p = {};
  p.type = a.floatType(dtype);
  p.from = a.count(from);
  p.count = a.count(count);
  p.position = a.count(position);
  if (const Storage* storage = a.storage(kArena, Storage::Kind::arena)) {
    p.arena = storage->arena;
    const BlockLayout& layout = p.arena.layout;
    const double rows = (a.number(from) + a.number(count)) * static_cast<double>(p.arena.kvHeads);
    p.k = a.floats(kKeys, p.type, rows * static_cast<double>(layout.headDim));
    p.v = a.floats(kValues, p.type, rows * static_cast<double>(layout.valueDim));
    a.require(holdsFloats(layout), kArena);
    const TableReader table(a, kIds, sinkBlocks, ringBlocks, p.arena);
    p.table = table.table();
    a.require(table.holds(p.position, p.position + p.count), kIds);
  }
  if (a.accepted()) a.report(static_cast<int>(store(p)));
  return nullptr;
}

// copyBlock(from, to)
napi_value copyBlockCall(napi_env env, napi_callback_info info) {
  using namespace copy_slot;
  enum : int { kFrom, kTo };
  Arguments a(env, info);
  CopyProblem p = {};
  p.fromId = a.count(fromId);
  p.toId = a.count(toId);
  const Storage* from = a.storage(kFrom, Storage::Kind::arena);
  const Storage* to = a.storage(kTo, Storage::Kind::arena);
  if (from != nullptr && to != nullptr) {
    p.from = from->arena;
    p.to = to->arena;
    a.require(p.fromId < p.from.blocks, kFrom);
    a.require(p.toId < p.to.blocks && sameShape(p.from, p.to), kTo);
  }
  if (a.accepted()) a.report(static_cast<int>(copyBlock(p)));
  return nullptr;
}

// moveTokens(from, ids, arena)
napi_value moveTokensCall(napi_env env, napi_callback_info info) {
  using namespace move_slot;
  enum : int { kFrom, kIds, kArena };
  Arguments a(env, info);
  MoveProblem p = {};
  p.to = a.count(to);
  p.count = a.count(count);
  p.from = a.array<int32_t>(kFrom, a.number(count));
  if (const Storage* storage = a.storage(kArena, Storage::Kind::arena)) {
    p.arena = storage->arena;
    a.require(holdsFloats(p.arena.layout), kArena);
    const TableReader table(a, kIds, sinkBlocks, ringBlocks, p.arena);
    p.table = table.table();
    a.require(table.holds(p.to, p.to + p.count), kIds);
    for (int64_t i = 0; a.fits() && i < p.count; i++)
      a.require(p.from[i] >= p.to + i && table.holds(p.from[i], int64_t{p.from[i]} + 1), kFrom);
  }
  if (a.accepted()) moveTokens(p);
  return nullptr;
}

napi_value readBlockCall(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  BlockBytes p = {};
  if (readBytes(a, p)) readBlock(p);
  return nullptr;
}

napi_value writeBlockCall(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  BlockBytes p = {};
  if (readBytes(a, p)) writeBlock(p);
  return nullptr;
}

}  // namespace gqa
