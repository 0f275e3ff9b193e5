// A block table as it arrives, and the check that the blocks a call reaches are blocks of the arena.
#pragma once
#include <algorithm>

#include "arguments.h"

namespace gqa {

// The blocks of an arena that a table leads to.
class HeldBlocks {
 public:
  HeldBlocks(const BlockTable& table, const ArenaView& arena)
      : table_(table), blockTokens_(arena.layout.blockTokens), blocks_(arena.blocks) {}

  // Whether positions [first, last) lie in blocks of the arena.
  bool holds(int64_t first, int64_t last) const {
    if (first >= last) return true;
    const int64_t firstOrdinal = first / blockTokens_, endOrdinal = (last - 1) / blockTokens_ + 1;
    const int64_t sinks = table_.sinkBlocks, ring = table_.ringBlocks;
    if (endOrdinal > sinks && ring == 0) return false;
    // A ring has no more slots than its length, however many positions have gone through it.
    return holdsOrdinals(firstOrdinal, std::min(endOrdinal, sinks)) &&
           holdsOrdinals(std::max({firstOrdinal, sinks, endOrdinal - ring}), endOrdinal);
  }

 private:
  bool holdsOrdinals(int64_t first, int64_t end) const {
    for (int64_t ordinal = first; ordinal < end; ordinal++) {
      const int64_t id = table_.slot(ordinal);
      if (id < 0 || id >= blocks_) return false;
    }
    return true;
  }

  BlockTable table_;
  int64_t blockTokens_, blocks_;
};

class TableReader {
 public:
  TableReader(Arguments& a, int position, int sinkSlot, int ringSlot, const ArenaView& arena) : arena_(arena) {
    size_t length = 0;
    table_.ids = a.wholeArray<int32_t>(position, &length);
    table_.sinkBlocks = a.count(sinkSlot);
    table_.ringBlocks = a.count(ringSlot);
    if (static_cast<int64_t>(length) < table_.sinkBlocks + table_.ringBlocks) {
      a.refuse(status::tooSmall, position);
      table_ = {nullptr, 0, 0};
    }
  }

  const BlockTable& table() const { return table_; }
  // Whether positions [first, last) lie in blocks of the arena.
  bool holds(int64_t first, int64_t last) const { return HeldBlocks(table_, arena_).holds(first, last); }

 private:
  const ArenaView& arena_;
  BlockTable table_ = {};
};

}  // namespace gqa
