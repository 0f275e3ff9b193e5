#include "attend.h"

#include <algorithm>

#include "attend_arguments.h"
#include "block_table.h"

namespace gqa {
namespace {

namespace at = attend_position;

// Elements that a broadcast tensor [B|1, Hq|1, Tq, Tk] reaches.
template <class T>
Broadcast<T> readBroadcast(Arguments& a, const AttendProblem& p, int position, int batchSlot, int headSlot) {
  Broadcast<T> b = {nullptr, a.count(batchSlot), a.count(headSlot)};
  if (p.batch == 0 || p.heads == 0) return b;
  const double last = product(p.batch - 1, b.batchStride, 1, 1) + product(p.heads - 1, b.headStride, 1, 1);
  b.data = a.array<T>(position, last + product(p.queryTokens, p.keyTokens, 1, 1));
  return b;
}

void readCache(Arguments& a, AttendProblem& p, int given) {
  using namespace attend_slot;
  readArenas(a, p, given);
  p.table = TableReader(a, at::keysOrIds, sinkBlocks, ringBlocks, p.arena).table();
  if ((given & attend_flag::tail) != 0) {
    p.tail.table = TableReader(a, at::tailIds, tailSinkBlocks, tailRingBlocks, p.tail.arena).table();
    p.tail.sinkOrdinals = a.count(tailSinkOrdinals);
    p.tail.firstOrdinal = a.count(tailFirstOrdinal);
  }
  if (a.fits()) a.require(holdsVisible(p), at::keysOrIds);
}

void readTensors(Arguments& a, AttendProblem& p) {
  p.kvType = a.floatType(attend_slot::kvDtype);
  p.k = a.floats(at::keysOrIds, p.kvType, product(p.batch, p.keyTokens, p.kvHeads, p.headDim));
  p.v = a.floats(at::valuesOrArena, p.kvType, product(p.batch, p.keyTokens, p.kvHeads, p.valueDim));
}

int readProblem(Arguments& a, AttendProblem& p) {
  using namespace attend_slot;
  const int given = readRows(a, p);
  p.causal = (given & attend_flag::causal) != 0;
  if ((given & attend_flag::cache) != 0) {
    readCache(a, p, given);
  } else {
    readTensors(a, p);
  }
  if ((given & attend_flag::mask) != 0)
    p.mask = readBroadcast<uint8_t>(a, p, at::mask, maskBatchStride, maskHeadStride);
  if ((given & attend_flag::bias) != 0) p.bias = readBroadcast<float>(a, p, at::bias, biasBatchStride, biasHeadStride);
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
  if (napi_create_array_with_length(env, at::count, &list) != napi_ok) return nullptr;
  for (int i = 0; i < at::count; i++) napi_set_element(env, list, static_cast<uint32_t>(i), a.value(i));
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
  int32_t* flag = a.array<int32_t>(at::cancel, 1);
  if (!a.accepted()) return nullptr;
  try {
    auto call = std::make_unique<AsyncCall>(env);
    call->problem = problem;
    if ((given & attend_flag::cache) != 0) {
      keepBlocks(*call, 0, call->problem.table, *a.storage(at::valuesOrArena, Storage::Kind::arena));
      if (problem.tail.arena.base != nullptr)
        keepBlocks(*call, 1, call->problem.tail.table, *a.storage(at::tailArena, Storage::Kind::arena));
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
