#include "attend.h"

#include <algorithm>

#include "arguments.h"
#include "block_table.h"

namespace gqa {
namespace {

// Positions of the arguments; see AttendArrays in lib/backend/addon.ts.
enum : int {
  kQ,
  kOut,
  kKeysOrIds,
  kValuesOrArena,
  kLse,
  kMask,
  kBias,
  kAlibi,
  kSinkLogits,
  kSinkQ,
  kTailIds,
  kTailArena,
  kCancel,
  kArrays
};

double product(int64_t a, int64_t b, int64_t c, int64_t d) {
  return static_cast<double>(a) * static_cast<double>(b) * static_cast<double>(c) * static_cast<double>(d);
}

void readShape(Arguments& a, AttendProblem& p) {
  using namespace attend_slot;
  p.qType = a.floatType(qDtype);
  p.outType = a.floatType(outDtype);
  p.batch = a.count(batch);
  p.queryTokens = a.count(queryTokens);
  p.keyTokens = a.count(keyTokens);
  p.heads = a.count(heads);
  p.kvHeads = a.count(kvHeads);
  p.headDim = a.count(headDim);
  p.valueDim = a.count(valueDim);
  p.window = a.countOrNone(window);
  p.sinkTokens = a.count(sinkTokens);
  p.scale = a.single(scale);
  p.softcap = a.single(softcap);
  p.dropout = a.number(dropout);
  p.dropoutSeed = static_cast<uint32_t>(a.count(dropoutSeed));
  a.require(p.kvHeads > 0 && p.heads % std::max<int64_t>(p.kvHeads, 1) == 0, kQ);
}

// Elements that a broadcast tensor [B|1, Hq|1, Tq, Tk] reaches.
template <class T>
Broadcast<T> readBroadcast(Arguments& a, const AttendProblem& p, int position, int batchSlot, int headSlot) {
  Broadcast<T> b = {nullptr, a.count(batchSlot), a.count(headSlot)};
  if (p.batch == 0 || p.heads == 0) return b;
  const double last = product(p.batch - 1, b.batchStride, 1, 1) + product(p.heads - 1, b.headStride, 1, 1);
  b.data = a.array<T>(position, last + product(p.queryTokens, p.keyTokens, 1, 1));
  return b;
}

// The arena at a position, of the problem's shape, or null.
const Storage* readArena(Arguments& a, const AttendProblem& p, int position) {
  const Storage* storage = a.storage(position, Storage::Kind::arena);
  if (storage == nullptr) return nullptr;
  const ArenaView& arena = storage->arena;
  a.require(p.batch == 1 && arena.kvHeads == p.kvHeads && arena.layout.headDim == p.headDim &&
                arena.layout.valueDim == p.valueDim,
            position);
  return storage;
}

// Whether the table holds what some row sees of keys [first, last).
bool holdsVisible(const TableReader& table, const AttendProblem& p, int64_t first, int64_t last) {
  if (p.keyTokens == 0 || p.queryTokens == 0) return true;
  const bool windowed = p.window < p.keyTokens;
  const int64_t shown = windowed ? std::max<int64_t>(0, p.keyTokens - p.queryTokens - p.window + 1) : 0;
  last = std::min(last, p.keyTokens);
  return table.holds(first, std::min(p.sinkTokens, last)) && table.holds(std::max(shown, first), last);
}

// Of keys [first, last) the tail holds those below `sinks` and those from `from` on, the table the others.
void readTail(Arguments& a, AttendProblem& p, int64_t& sinks, int64_t& from) {
  using namespace attend_slot;
  const Storage* storage = readArena(a, p, kTailArena);
  if (storage == nullptr) return;
  const BlockLayout& layout = storage->arena.layout;
  a.require(layout.blockTokens == p.arena.layout.blockTokens, kTailArena);
  const TableReader table(a, kTailIds, tailSinkBlocks, tailRingBlocks, storage->arena);
  p.tail = {storage->arena, table.table(), a.count(tailSinkOrdinals), a.count(tailFirstOrdinal)};
  sinks = p.tail.sinkOrdinals * layout.blockTokens;
  from = p.tail.firstOrdinal * layout.blockTokens;
  a.require(holdsVisible(table, p, 0, sinks) && holdsVisible(table, p, from, p.keyTokens), kTailIds);
}

void readCache(Arguments& a, AttendProblem& p, int given) {
  const Storage* storage = readArena(a, p, kValuesOrArena);
  if (storage == nullptr) return;
  p.arena = storage->arena;
  int64_t sinks = 0, from = p.keyTokens;
  if ((given & attend_flag::tail) != 0) readTail(a, p, sinks, from);
  const TableReader table(a, kKeysOrIds, attend_slot::sinkBlocks, attend_slot::ringBlocks, p.arena);
  p.table = table.table();
  a.require(holdsVisible(table, p, sinks, from), kKeysOrIds);
  if ((given & attend_flag::sinkQ) != 0)
    p.sinkQ = a.floats(kSinkQ, p.qType, product(p.batch, p.queryTokens, p.heads, p.headDim));
}

void readTensors(Arguments& a, AttendProblem& p) {
  p.kvType = a.floatType(attend_slot::kvDtype);
  p.k = a.floats(kKeysOrIds, p.kvType, product(p.batch, p.keyTokens, p.kvHeads, p.headDim));
  p.v = a.floats(kValuesOrArena, p.kvType, product(p.batch, p.keyTokens, p.kvHeads, p.valueDim));
}

int readProblem(Arguments& a, AttendProblem& p) {
  using namespace attend_slot;
  const int given = static_cast<int>(a.count(flags));
  readShape(a, p);
  p.causal = (given & attend_flag::causal) != 0;
  p.fast = (given & attend_flag::fast) != 0;
  p.q = a.floats(kQ, p.qType, product(p.batch, p.queryTokens, p.heads, p.headDim));
  p.out = a.floats(kOut, p.outType, product(p.batch, p.queryTokens, p.heads, p.valueDim));
  if ((given & attend_flag::cache) != 0) {
    readCache(a, p, given);
  } else {
    readTensors(a, p);
  }
  if ((given & attend_flag::lse) != 0) p.lse = a.array<float>(kLse, product(p.batch, p.queryTokens, p.heads, 1));
  if ((given & attend_flag::mask) != 0) p.mask = readBroadcast<uint8_t>(a, p, kMask, maskBatchStride, maskHeadStride);
  if ((given & attend_flag::bias) != 0) p.bias = readBroadcast<float>(a, p, kBias, biasBatchStride, biasHeadStride);
  const double perHead = static_cast<double>(p.heads);
  if ((given & attend_flag::alibi) != 0) p.alibiSlopes = a.array<float>(kAlibi, perHead);
  if ((given & attend_flag::sinkLogits) != 0) p.sinkLogits = a.array<float>(kSinkLogits, perHead);
  return given;
}

// A copy of the table, which may change meanwhile, and a hold on the memory it leads to.
void keepBlocks(AsyncCall& call, int index, BlockTable& table, const Storage& storage) {
  call.ids[index].assign(table.ids, table.ids + table.sinkBlocks + table.ringBlocks);
  call.pages[index] = storage.pages;
  table.ids = call.ids[index].data();
}

// One JavaScript array that holds every argument, for as long as it is referred to.
napi_ref keepArguments(napi_env env, const Arguments& a) {
  napi_value list;
  napi_ref reference = nullptr;
  if (napi_create_array_with_length(env, kArrays, &list) != napi_ok) return nullptr;
  for (int i = 0; i < kArrays; i++) napi_set_element(env, list, static_cast<uint32_t>(i), a.value(i));
  return napi_create_reference(env, list, 1, &reference) == napi_ok ? reference : nullptr;
}

}  // namespace

Status attendRows(const AttendProblem& problem, CancelFlag cancel) {
  const bool rows = problem.batch > 0 && problem.queryTokens > 0 && problem.heads > 0;
  return rows ? attend(problem, cancel) : Status::ok;
}

napi_value attendCall(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  AttendProblem problem = {};
  readProblem(a, problem);
  if (a.accepted()) a.report(static_cast<int>(attendRows(problem, nullptr)));
  return nullptr;
}

napi_value attendAsyncCall(napi_env env, napi_callback_info info) {
  static_assert(sizeof(std::atomic<int32_t>) == sizeof(int32_t), "the flag is one element of an Int32Array");
  Arguments a(env, info);
  AttendProblem problem = {};
  const int given = readProblem(a, problem);
  int32_t* flag = a.array<int32_t>(kCancel, 1);
  if (!a.accepted()) return nullptr;
  try {
    auto call = std::make_unique<AsyncCall>(env);
    call->problem = problem;
    if ((given & attend_flag::cache) != 0) {
      keepBlocks(*call, 0, call->problem.table, *a.storage(kValuesOrArena, Storage::Kind::arena));
      if (problem.tail.arena.base != nullptr)
        keepBlocks(*call, 1, call->problem.tail.table, *a.storage(kTailArena, Storage::Kind::arena));
    }
    call->cancel = reinterpret_cast<std::atomic<int32_t>*>(flag);
    call->arrays = keepArguments(env, a);
    return a.environment().asyncCalls(env).start(env, std::move(call));
  } catch (const std::exception&) {
    a.report(status::outOfMemory);
    return nullptr;
  }
}

}  // namespace gqa
