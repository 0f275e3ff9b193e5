// What a block adds to the statistics of a tile's rows beside what the softmax itself sums up.
#pragma once

namespace gqa {
namespace {

// Keys that a row sees: a score of -Infinity is a hidden one's.
GQA_INLINE float visibleColumns(const ScoreTile& t, int64_t r) {
  const Vec lowest = splat(-std::numeric_limits<float>::max());
  Vec seen = zero();
  for (int64_t c = t.firstColumn; c < t.lastColumn; c += kLanes)
    seen = add(seen, whereLess(load(t.row(r) + c), lowest, zero(), splat(1.f)));
  return reduceAdd(seen);
}

// Weight of a row's keys at positions below sinkTokens, and of those of its recent window, j > p - recentTokens.
GQA_INLINE void addMasses(const ScoreTile& t, int64_t r, const float* weights, RowStatistics& to) {
  const StatisticsView& s = t.problem->statistics;
  const int64_t sinkEnd = s.sinkTokens - t.firstKey, oldest = t.position(r) - s.recentTokens + 1 - t.firstKey;
  Vec sink = zero(), recent = zero();
  for (int64_t c = t.firstColumn; c < t.lastColumn; c += kLanes) {
    const Vec w = load(weights + c);
    sink = add(sink, whereLane(0, clampLane(sinkEnd, c), w, zero()));
    recent = add(recent, whereLane(clampLane(oldest, c), kLanes, w, zero()));
  }
  to.sink += reduceAdd(sink);
  to.recent += reduceAdd(recent);
}

// The same of keys that are tokens of a tree, whose positions are those of their depths.
GQA_INLINE void addTreeMasses(const ScoreTile& t, int64_t r, const float* weights, RowStatistics& to) {
  const AttendProblem& p = *t.problem;
  const int64_t oldest = t.position(r) - p.statistics.recentTokens + 1;
  for (int64_t token = 0; token < p.queryTokens; ++token) {
    const int64_t column = t.firstToken() + token - t.firstKey;
    if (column < t.firstColumn || column >= t.lastColumn) continue;
    if (p.positions[token] < p.statistics.sinkTokens) to.sink += weights[column];
    if (p.positions[token] >= oldest) to.recent += weights[column];
  }
}

// Whether keys of the range count as sinks or as recent to some row at position `low` or later.
GQA_INLINE bool hasMasses(const AttendProblem& p, int64_t low, KeyRange keys) {
  return p.tree || keys.first < p.statistics.sinkTokens || keys.last > low - p.statistics.recentTokens + 1;
}

// The tile's weights, before dropout, of keys `keys`; `whole`: every row sees all of these.
GQA_INLINE void observeTile(const AttendContext& c, const ScoreTile& t, int64_t low, KeyRange keys, bool whole,
                            RowStatistics* rows) {
  const bool masses = hasMasses(c.problem, low, keys);
  for (int64_t r = 0; r < t.rows; ++r) {
    rows[r].visible += whole ? float(keys.last - keys.first) : visibleColumns(t, r);
    if (!masses) continue;
    if (c.problem.tree)
      addTreeMasses(t, r, c.weights + r * kScoreStride, rows[r]);
    else
      addMasses(t, r, c.weights + r * kScoreStride, rows[r]);
  }
}

// Begins the lanes of a task's rows, and adds them up into its states: a task may fold several segments into these.
GQA_INLINE void beginObserving(const AttendContext& c) {
  for (int64_t r = 0; r < c.task.rows; ++r) {
    storeFirst(c.spreads + r * kLanes, kLanes, loadFirst(&c.task.states.statistics[r].spread, 1));
    store(c.highest + r * kLanes, splat(-kInfinity));
  }
}

GQA_INLINE void endObserving(const AttendContext& c) {
  for (int64_t r = 0; r < c.task.rows; ++r) {
    RowStatistics& s = c.task.states.statistics[r];
    const float highest = reduceMax(load(c.highest + r * kLanes)) * c.softmaxScale;
    s.spread = reduceAdd(load(c.spreads + r * kLanes));
    s.highest = s.highest > highest ? s.highest : highest;
  }
}

}  // namespace
}  // namespace gqa
