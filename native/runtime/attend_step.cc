// Attention of several sequences in one call: a plan for each of them, as if it were alone, and one for each run of
// keys that several share. The rows of all who share one meet it together (cascade attention); each then merges its
// part of those states into its own.
#include <algorithm>
#include <cstring>
#include <limits>

#include "attend_plan.h"

namespace gqa {
namespace {

// Rows of a sequence per KV head up to which sharing pays: more make good use of a block by themselves.
constexpr int64_t kMostSharedRows = 256;
// Bytes before a tree's mask, of which kernels may read a vector's worth.
constexpr int64_t kMaskMargin = 64;

// Cuts memory into arrays; without any it counts how much they need.
class Carver {
 public:
  explicit Carver(void* base) : base_(static_cast<char*>(base)) {}

  template <class T>
  T* take(int64_t count) {
    T* array = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    used_ += roundUp(count * static_cast<int64_t>(sizeof(T)), 64);
    return array;
  }
  int64_t floats() const { return used_ / 4; }

 private:
  char* base_;
  int64_t used_ = 0;
};

struct StepMemory {
  AttendPlan* plans;  // of entries, then of shares
  int64_t* order;
  int64_t* firsts;
  SharedStates** last;   // [entries], the end of each list of shares
  SharedStates* shared;  // of all members
  int64_t* positions;    // of trees, and of shares where distances count
  uint8_t* masks;        // of trees
  char* queries;         // of shares whose members do not lie one after another
  char* sinkQueries;
};

const void* rowsAt(const void* base, DType type, int64_t elements) {
  return base == nullptr ? nullptr : static_cast<const char*>(base) + elements * elementBytes(type);
}

char* append(char* to, const void* from, int64_t bytes) {
  std::memcpy(to, from, static_cast<size_t>(bytes));
  return to + bytes;
}

// Multiply-adds of a plan's tasks, each.
double taskLength(const AttendPlan& plan) {
  return plan.tasks() == 0 ? 0 : multiplyAdds(plan) / static_cast<double>(plan.tasks());
}

class Step {
 public:
  explicit Step(const StepProblem& step) : step_(step), common_(step.common) {}

  Status run();

 private:
  int64_t plans() const { return step_.count + step_.shareCount; }
  int64_t rowElements() const { return common_.heads * common_.headDim; }
  bool takesPart(const StepEntry& e) const {
    return e.ownKey > 0 && e.tokens * (common_.heads / common_.kvHeads) <= kMostSharedRows;
  }
  void layOut(Carver& memory);
  AttendProblem problemOf(const StepEntry& e) const;
  void plantTree(const StepEntry& e, AttendProblem& p);
  void addEntry(int64_t index);
  void addShare(int64_t index);
  bool lieTogether(const StepShare& share) const;
  void gather(const StepShare& share, AttendProblem& p);
  void putInOrder();

  const StepProblem& step_;
  const AttendProblem& common_;
  StepMemory memory_ = {};
};

void Step::layOut(Carver& memory) {
  int64_t members = 0, positions = 0, masks = 0, queries = 0;
  for (int64_t i = 0; i < step_.count; ++i) {
    const StepEntry& e = step_.entries[i];
    if (e.tree == nullptr) continue;
    positions += e.tokens;
    masks += kMaskMargin + e.tokens * e.tokens;
  }
  for (int64_t i = 0; i < step_.shareCount; ++i) {
    const StepShare& share = step_.shares[i];
    members += share.count;
    for (int64_t m = 0; m < share.count; ++m) queries += step_.entries[share.members[m]].tokens;
  }
  memory_.plans = memory.take<AttendPlan>(plans());
  memory_.order = memory.take<int64_t>(plans());
  memory_.firsts = memory.take<int64_t>(2 * (plans() + 1));
  memory_.last = memory.take<SharedStates*>(step_.count);
  memory_.shared = memory.take<SharedStates>(members);
  memory_.positions = memory.take<int64_t>(positions + queries);
  memory_.masks = memory.take<uint8_t>(masks);
  const int64_t bytes = queries * rowElements() * elementBytes(common_.qType);
  memory_.queries = memory.take<char>(bytes);
  memory_.sinkQueries = memory.take<char>(common_.sinkQ == nullptr ? 0 : bytes);
}

// The entry as a call of its own would have it.
AttendProblem Step::problemOf(const StepEntry& e) const {
  AttendProblem p = common_;
  p.queryTokens = e.tokens;
  p.keyTokens = e.keyTokens;
  p.q = rowsAt(p.q, p.qType, e.firstToken * rowElements());
  p.sinkQ = rowsAt(p.sinkQ, p.qType, e.firstToken * rowElements());
  p.out = static_cast<char*>(p.out) + e.firstToken * p.heads * p.valueDim * elementBytes(p.outType);
  if (p.lse != nullptr) p.lse += e.firstToken * p.heads;
  if (p.statistics.data != nullptr) p.statistics.data += e.firstToken * p.heads;
  p.table = e.table;
  p.tail.table = e.tailTable;
  p.tail.sinkOrdinals = e.tailSinkOrdinals;
  p.tail.firstOrdinal = e.tailFirstOrdinal;
  return p;
}

// Rows at the positions of their depths, which see of the entry's own tokens those that the tree says.
void Step::plantTree(const StepEntry& e, AttendProblem& p) {
  const int64_t firstToken = e.keyTokens - e.tokens;
  uint8_t* mask = memory_.masks + kMaskMargin;
  for (int64_t i = 0; i < e.tokens; ++i) memory_.positions[i] = firstToken + e.tree[i];
  for (int64_t i = 0; i < e.tokens * e.tokens; ++i) mask[i] = e.tree[e.tokens + i] != 0;
  p.tree = true;
  p.causal = false;
  p.positions = memory_.positions;
  p.mask = {mask, 0, 0};
  memory_.positions += e.tokens;
  memory_.masks += kMaskMargin + e.tokens * e.tokens;
}

void Step::addEntry(int64_t index) {
  const StepEntry& e = step_.entries[index];
  AttendProblem p = problemOf(e);
  if (e.tree != nullptr) plantTree(e, p);
  memory_.plans[index] = makePlan(p, takesPart(e) ? e.ownKey : 0, plans());
  memory_.last[index] = nullptr;
}

// Whether the rows of all who take part lie one after another.
bool Step::lieTogether(const StepShare& share) const {
  int64_t next = -1;
  for (int64_t m = 0; m < share.count; ++m) {
    const StepEntry& e = step_.entries[share.members[m]];
    if (!takesPart(e)) continue;
    if (next >= 0 && next != e.firstToken) return false;
    next = e.firstToken + e.tokens;
  }
  return true;
}

// The queries of all who take part, and where distances count, their positions, one after another.
void Step::gather(const StepShare& share, AttendProblem& p) {
  const int64_t rowBytes = rowElements() * elementBytes(p.qType);
  const bool copies = !lieTogether(share);
  if (p.alibiSlopes != nullptr || p.statistics.data != nullptr) p.positions = memory_.positions;
  p.queryTokens = 0;
  for (int64_t m = 0; m < share.count; ++m) {
    const StepEntry& e = step_.entries[share.members[m]];
    if (!takesPart(e)) continue;
    const AttendProblem& own = memory_.plans[share.members[m]].problem;
    if (p.queryTokens == 0) {
      p.q = copies ? memory_.queries : own.q;
      if (p.sinkQ != nullptr) p.sinkQ = copies ? memory_.sinkQueries : own.sinkQ;
    }
    if (copies) memory_.queries = append(memory_.queries, own.q, e.tokens * rowBytes);
    if (copies && p.sinkQ != nullptr) memory_.sinkQueries = append(memory_.sinkQueries, own.sinkQ, e.tokens * rowBytes);
    if (p.positions != nullptr) {
      for (int64_t i = 0; i < e.tokens; ++i)
        *memory_.positions++ = own.positions != nullptr ? own.positions[i] : e.keyTokens - e.tokens + i;
    }
    p.queryTokens += e.tokens;
  }
}

void Step::addShare(int64_t index) {
  const StepShare& share = step_.shares[index];
  AttendProblem p = problemOf(step_.entries[share.members[0]]);
  AttendPlan& plan = memory_.plans[step_.count + index];
  p.out = nullptr;
  p.lse = nullptr;
  p.keyTokens = share.lastKey;
  // Every row sees every key.
  p.causal = false;
  p.window = std::numeric_limits<int64_t>::max();
  if (share.firstKey >= p.sinkTokens) p.sinkQ = nullptr;
  gather(share, p);
  plan = makePlan(p, share.firstKey, plans());
  plan.finishes = false;

  int64_t row = 0;
  for (int64_t m = 0; m < share.count; ++m) {
    const int64_t member = share.members[m];
    if (!takesPart(step_.entries[member])) continue;
    SharedStates* states = memory_.shared++;
    *states = {&plan, row, nullptr};
    if (memory_.last[member] == nullptr)
      memory_.plans[member].shared = states;
    else
      memory_.last[member]->next = states;
    memory_.last[member] = states;
    row += memory_.plans[member].rows;
  }
}

// The longest tasks first: what is left for the end is short. Whether to prefetch is decided by all that is read.
void Step::putInOrder() {
  double bytes = 0;
  for (int64_t i = 0; i < plans(); ++i) {
    memory_.order[i] = i;
    bytes += keyBytes(memory_.plans[i]);
  }
  const Prefetch prefetch = prefetchFor(bytes);
  for (int64_t i = 0; i < plans(); ++i) memory_.plans[i].prefetch = prefetch;
  const AttendPlan* all = memory_.plans;
  std::sort(memory_.order, memory_.order + plans(), [all](int64_t a, int64_t b) {
    const double x = taskLength(all[a]), y = taskLength(all[b]);
    return x != y ? x > y : a < b;
  });
}

Status Step::run() {
  Carver counter(nullptr);
  layOut(counter);
  float* scratch = threadScratch(Scratch::plan, counter.floats());
  if (scratch == nullptr) return Status::outOfMemory;
  Carver memory(scratch);
  layOut(memory);
  for (int64_t i = 0; i < step_.count; ++i) addEntry(i);
  for (int64_t i = 0; i < step_.shareCount; ++i) addShare(i);
  putInOrder();
  return attendPlans(memory_.plans, memory_.order, memory_.firsts, plans(), nullptr);
}

}  // namespace

Status attendStep(const StepProblem& step) { return Step(step).run(); }

}  // namespace gqa
