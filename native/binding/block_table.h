// A block table as it arrives, and the check that the blocks a call reaches are blocks of the arena.
#pragma once
#include <algorithm>

#include "arguments.h"

namespace gqa {

class TableReader {
 public:
  TableReader(Arguments& a, int position, int sinkSlot, int ringSlot, const ArenaView& arena)
      : blockTokens_(arena.layout.blockTokens), blocks_(arena.blocks) {
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
  bool holds(int64_t first, int64_t last) const {
    if (first >= last) return true;
    const int64_t lastOrdinal = (last - 1) / blockTokens_;
    if (lastOrdinal >= table_.sinkBlocks && table_.ringBlocks == 0) return false;
    // A ring has no more slots than its length, however many positions have gone through it.
    const int64_t slots = table_.sinkBlocks + table_.ringBlocks;
    const int64_t firstOrdinal = std::max(first / blockTokens_, lastOrdinal - slots + 1);
    for (int64_t ordinal = firstOrdinal; ordinal <= lastOrdinal; ordinal++) {
      const int64_t id = table_.slot(ordinal);
      if (id < 0 || id >= blocks_) return false;
    }
    return true;
  }

 private:
  BlockTable table_ = {};
  int64_t blockTokens_, blocks_;
};

}  // namespace gqa
