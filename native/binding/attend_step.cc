// attendStep: a plan of entries and shares, read into structures of the runtime's and checked, so that none, however
// wrong, leads out of an array or an arena.
#include <algorithm>

#include "attend.h"
#include "attend_arguments.h"
#include "block_table.h"

namespace gqa {
namespace {

namespace at = attend_position;

template <class T>
struct List {
  T* data;
  int64_t length;

  // `count` elements from `first` on, or null.
  T* part(int64_t first, double count) const {
    return static_cast<double>(first) + count <= static_cast<double>(length) ? data + first : nullptr;
  }
};

template <class T>
List<T> readList(Arguments& a, int position) {
  size_t length = 0;
  T* data = a.wholeArray<T>(position, &length);
  return {data, static_cast<int64_t>(length)};
}

class StepReader {
 public:
  explicit StepReader(Arguments& a) : a_(a) {}

  // False if something does not fit; a step of many entries lies in this thread's scratch.
  bool read(StepProblem& step);

 private:
  // A row of numbers of [0, 2^53), cut to whole ones; that of `orNone` may be -1.
  bool readRow(const double* row, int width, int orNone, int64_t* to) const;
  bool readEntry(const StepProblem& step, const double* row, StepEntry& entry) const;
  bool readTree(const StepEntry& entry) const;
  bool readShare(const StepProblem& step, const double* row, StepEntry* entries, StepShare& share) const;
  bool joins(const StepProblem& step, const StepShare& share, StepEntry& entry, const StepEntry& first) const;
  BlockTable tableAt(int64_t first, int64_t sinkBlocks, int64_t ringBlocks) const {
    const double slots = static_cast<double>(sinkBlocks) + static_cast<double>(ringBlocks);
    return {ids_.part(first, slots), sinkBlocks, ringBlocks};
  }

  Arguments& a_;
  List<int32_t> ids_, trees_, members_;
  int64_t sinkBlocks_, ringBlocks_, tailSinkBlocks_, tailRingBlocks_;
};

bool StepReader::readRow(const double* row, int width, int orNone, int64_t* to) const {
  for (int i = 0; i < width; i++) {
    const bool none = i == orNone && row[i] == -1;
    if (!none && !(row[i] >= 0 && row[i] < 9007199254740992.0)) return false;
    to[i] = static_cast<int64_t>(row[i]);
  }
  return true;
}

// Depths of a tree's tokens are positions of the sequence.
bool StepReader::readTree(const StepEntry& entry) const {
  for (int64_t i = 0; i < entry.tokens; i++)
    if (entry.tree[i] < 0 || entry.tree[i] >= entry.tokens) return false;
  return true;
}

AttendProblem problemOf(const StepProblem& step, const StepEntry& entry) {
  AttendProblem p = step.common;
  p.queryTokens = entry.tokens;
  p.keyTokens = entry.keyTokens;
  p.table = entry.table;
  p.tail = {p.tail.arena, entry.tailTable, entry.tailSinkOrdinals, entry.tailFirstOrdinal};
  return p;
}

bool StepReader::readEntry(const StepProblem& step, const double* row, StepEntry& entry) const {
  using namespace entry_slot;
  int64_t n[width];
  if (!readRow(row, width, tree, n)) return false;
  entry = {};
  entry.firstToken = n[firstToken];
  entry.tokens = n[tokens];
  entry.keyTokens = n[keyTokens];
  if (entry.firstToken + entry.tokens > step.common.queryTokens || entry.tokens > entry.keyTokens) return false;
  entry.table = tableAt(n[ids], sinkBlocks_, ringBlocks_);
  if (entry.table.ids == nullptr) return false;
  if (step.common.tail.arena.base != nullptr) {
    entry.tailTable = tableAt(n[tailIds], tailSinkBlocks_, tailRingBlocks_);
    entry.tailSinkOrdinals = n[tailSinkOrdinals];
    entry.tailFirstOrdinal = n[tailFirstOrdinal];
    if (entry.tailTable.ids == nullptr) return false;
  }
  if (n[tree] >= 0) {
    entry.tree = trees_.part(n[tree], static_cast<double>(entry.tokens) * (static_cast<double>(entry.tokens) + 1));
    if (entry.tree == nullptr || !readTree(entry)) return false;
  }
  return holdsVisible(problemOf(step, entry));
}

// Where an entry's block of an ordinal lies.
struct BlockPlace {
  bool tail;
  int64_t id;
};

BlockPlace placeOf(const StepProblem& step, const StepEntry& e, int64_t ordinal) {
  const bool tail =
      step.common.tail.arena.base != nullptr && (ordinal < e.tailSinkOrdinals || ordinal >= e.tailFirstOrdinal);
  return {tail, (tail ? e.tailTable : e.table).slot(ordinal)};
}

// Whether every row of the entry sees the whole share, in the blocks of `first`, and has seen what lies before it.
bool StepReader::joins(const StepProblem& step, const StepShare& share, StepEntry& e, const StepEntry& first) const {
  const int64_t blockTokens = step.common.arena.layout.blockTokens, firstToken = e.keyTokens - e.tokens;
  if (e.tokens == 0 || e.ownKey != share.firstKey || share.lastKey > firstToken) return false;
  const int64_t deepest = e.tree != nullptr ? *std::max_element(e.tree, e.tree + e.tokens) : e.tokens - 1;
  const int64_t windowed = std::max(share.firstKey, step.common.sinkTokens);
  if (windowed < share.lastKey && firstToken + deepest - windowed >= step.common.window) return false;
  for (int64_t o = share.firstKey / blockTokens; o < share.lastKey / blockTokens; o++) {
    const BlockPlace own = placeOf(step, e, o), shared = placeOf(step, first, o);
    if (own.tail != shared.tail || own.id != shared.id) return false;
  }
  e.ownKey = share.lastKey;
  return true;
}

bool StepReader::readShare(const StepProblem& step, const double* row, StepEntry* entries, StepShare& share) const {
  using namespace share_slot;
  int64_t n[width];
  if (!readRow(row, width, -1, n)) return false;
  const int64_t blockTokens = step.common.arena.layout.blockTokens;
  share = {n[firstKey], n[lastKey], members_.part(n[member], static_cast<double>(n[members])), n[members]};
  if (share.members == nullptr || share.count == 0 || share.firstKey >= share.lastKey) return false;
  if (share.firstKey % blockTokens != 0 || share.lastKey % blockTokens != 0) return false;
  for (int64_t i = 0; i < share.count; i++) {
    const int64_t index = share.members[i];
    if (index < 0 || index >= step.count || !joins(step, share, entries[index], entries[share.members[0]]))
      return false;
  }
  return true;
}

bool StepReader::read(StepProblem& step) {
  AttendProblem& p = step.common;
  const int given = readRows(a_, p);
  readArenas(a_, p, given);
  p.causal = true;
  a_.require(p.heads > 0, at::q);
  sinkBlocks_ = a_.count(attend_slot::sinkBlocks);
  ringBlocks_ = a_.count(attend_slot::ringBlocks);
  tailSinkBlocks_ = a_.count(attend_slot::tailSinkBlocks);
  tailRingBlocks_ = a_.count(attend_slot::tailRingBlocks);
  ids_ = readList<int32_t>(a_, at::keysOrIds);
  trees_ = readList<int32_t>(a_, step_position::trees);
  members_ = readList<int32_t>(a_, step_position::members);
  step.count = a_.count(step_slot::count);
  step.shareCount = a_.count(step_slot::shareCount);
  const double* rows = a_.array<double>(step_position::entries, product(step.count, entry_slot::width, 1, 1));
  const double* runs = a_.array<double>(step_position::shares, product(step.shareCount, share_slot::width, 1, 1));
  if (!a_.fits()) return false;

  const int64_t entryBytes = roundUp(step.count * static_cast<int64_t>(sizeof(StepEntry)), 64);
  const int64_t shareBytes = step.shareCount * static_cast<int64_t>(sizeof(StepShare));
  float* memory = threadScratch(Scratch::arguments, (entryBytes + shareBytes) / 4);
  if (memory == nullptr) {
    a_.refuse(status::outOfMemory, step_position::entries);
    return false;
  }
  StepEntry* entries = reinterpret_cast<StepEntry*>(memory);
  StepShare* shares = reinterpret_cast<StepShare*>(memory + entryBytes / 4);
  step.entries = entries;
  step.shares = shares;
  for (int64_t i = 0; i < step.count && a_.fits(); i++)
    a_.require(readEntry(step, rows + i * entry_slot::width, entries[i]), step_position::entries);
  for (int64_t i = 0; i < step.shareCount && a_.fits(); i++)
    a_.require(readShare(step, runs + i * share_slot::width, entries, shares[i]), step_position::shares);
  return a_.fits();
}

}  // namespace

napi_value attendStepCall(napi_env env, napi_callback_info info) {
  Arguments a(env, info);
  StepProblem step = {};
  StepReader(a).read(step);
  if (a.accepted()) a.report(static_cast<int>(attendStep(step)));
  return nullptr;
}

}  // namespace gqa
