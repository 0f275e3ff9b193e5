#include "attend_arguments.h"

#include <algorithm>

#include "block_table.h"

namespace gqa {
namespace {

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
  a.require(p.kvHeads > 0 && p.heads % std::max<int64_t>(p.kvHeads, 1) == 0, attend_position::q);
}

// Planes, in which the rows of the call are some.
void readStatistics(Arguments& a, AttendProblem& p) {
  static_assert(statistic::count == kStatistics, "planes are those of ops.h");
  StatisticsView& s = p.statistics;
  s.plane = a.count(attend_slot::statisticsRows);
  s.sinkTokens = a.count(attend_slot::statisticsSinkTokens);
  s.recentTokens = a.count(attend_slot::statisticsRecentTokens);
  const int64_t first = a.count(attend_slot::statisticsFirstRow);
  s.data = a.array<float>(attend_position::statistics, product(kStatistics, s.plane, 1, 1));
  const double last = static_cast<double>(first) + product(p.batch, p.queryTokens, p.heads, 1);
  a.require(last <= static_cast<double>(s.plane), attend_position::statistics);
  if (a.fits()) s.data += first;
}

// The arena at a position, of the problem's shape; one of no blocks where there is none.
ArenaView readArena(Arguments& a, const AttendProblem& p, int position) {
  const Storage* storage = a.storage(position, Storage::Kind::arena);
  if (storage == nullptr) return {};
  const ArenaView& arena = storage->arena;
  a.require(p.batch == 1 && arena.kvHeads == p.kvHeads && arena.layout.headDim == p.headDim &&
                arena.layout.valueDim == p.valueDim,
            position);
  return arena;
}

// Whether the table holds what some row sees of keys [first, last).
bool holdsSeen(const HeldBlocks& blocks, const AttendProblem& p, int64_t first, int64_t last) {
  const bool windowed = p.window < p.keyTokens;
  const int64_t shown = windowed ? std::max<int64_t>(0, p.keyTokens - p.queryTokens - p.window + 1) : 0;
  last = std::min(last, p.keyTokens);
  return blocks.holds(first, std::min(p.sinkTokens, last)) && blocks.holds(std::max(shown, first), last);
}

}  // namespace

int readRows(Arguments& a, AttendProblem& p) {
  namespace at = attend_position;
  const int given = static_cast<int>(a.count(attend_slot::flags));
  readShape(a, p);
  p.fast = (given & attend_flag::fast) != 0;
  p.q = a.floats(at::q, p.qType, product(p.batch, p.queryTokens, p.heads, p.headDim));
  p.out = a.floats(at::out, p.outType, product(p.batch, p.queryTokens, p.heads, p.valueDim));
  if ((given & attend_flag::lse) != 0) p.lse = a.array<float>(at::lse, product(p.batch, p.queryTokens, p.heads, 1));
  if ((given & attend_flag::statistics) != 0) readStatistics(a, p);
  const double perHead = static_cast<double>(p.heads);
  if ((given & attend_flag::alibi) != 0) p.alibiSlopes = a.array<float>(at::alibi, perHead);
  if ((given & attend_flag::sinkLogits) != 0) p.sinkLogits = a.array<float>(at::sinkLogits, perHead);
  return given;
}

void readArenas(Arguments& a, AttendProblem& p, int given) {
  namespace at = attend_position;
  p.arena = readArena(a, p, at::valuesOrArena);
  if ((given & attend_flag::tail) != 0) {
    p.tail.arena = readArena(a, p, at::tailArena);
    const BlockLayout &main = p.arena.layout, &tail = p.tail.arena.layout;
    a.require(tail.blockTokens == main.blockTokens && tail.rotateKeys == main.rotateKeys &&
                  tail.rotateValues == main.rotateValues,
              at::tailArena);
  }
  if ((given & attend_flag::sinkQ) != 0)
    p.sinkQ = a.floats(at::sinkQ, p.qType, product(p.batch, p.queryTokens, p.heads, p.headDim));
}

bool holdsVisible(const AttendProblem& p) {
  if (p.keyTokens == 0 || p.queryTokens == 0) return true;
  const HeldBlocks blocks(p.table, p.arena);
  if (p.tail.arena.base == nullptr) return holdsSeen(blocks, p, 0, p.keyTokens);
  const HeldBlocks tail(p.tail.table, p.tail.arena);
  const int64_t blockTokens = p.arena.layout.blockTokens;
  const int64_t sinks = p.tail.sinkOrdinals * blockTokens, from = p.tail.firstOrdinal * blockTokens;
  return holdsSeen(tail, p, 0, sinks) && holdsSeen(blocks, p, sinks, from) && holdsSeen(tail, p, from, p.keyTokens);
}

}  // namespace gqa
