/**
 * From raw scores of one row and block to weights: softcap, bias, ALiBi, visibility, the online softmax and dropout.
 * What stays visible is written down as runs of slots; nothing hidden is ever multiplied, so nothing of it can leak.
 */
import type { Broadcast } from '../contract';
import type { Problem, Span } from './problem';
import { observeMasses, observeSpread } from './statistics';
import type { Workspace } from './workspace';
import { RUN_STRIDE } from './workspace';

// Names of the module's own: in a vm context (jest) finding a global costs more than the exponential.
const { exp, imul, max: larger, min: smaller, tanh } = Math;

/** One row of queries: which keys the causal line, window and sinks let it see. */
export interface RowView {
  span: Span;
  head: number;
  query: number;
  /** Absolute position p of the query. */
  position: number;
  /** Visible keys: [0, sinkEnd) and [start, end), and of a tree those from `end` on that its matrix shows. */
  sinkEnd: number;
  start: number;
  end: number;
}

export function viewRow(problem: Problem, view: RowView, span: Span, query: number): void {
  const { keyTokens, tree } = span;
  const firstPosition = keyTokens - span.queryTokens;
  const depth = tree < 0 ? query : span.trees[tree + query];
  const position = firstPosition + depth;
  view.span = span;
  view.query = query;
  view.position = position;
  if (tree >= 0) view.end = firstPosition;
  else view.end = problem.causal ? larger(0, smaller(keyTokens, position + 1)) : keyTokens;
  view.start = smaller(view.end, larger(0, position - problem.window + 1));
  view.sinkEnd = smaller(problem.sinkTokens, view.start);
}

/**
 * Folds scores[row, from .. to) of a block whose slot 0 is key `firstKey` into the row's state. Afterwards scores holds
 * the weights exp(s - max) (times the dropout factor) and `runs` the visible slots; out is the caller's to add.
 */
export function foldRow(
  problem: Problem,
  workspace: Workspace,
  row: number,
  view: RowView,
  firstKey: number,
  from: number,
  to: number,
): void {
  workspace.runCounts[row] = 0;
  const sinkEnd = smaller(to, view.sinkEnd - firstKey);
  let max = -Infinity;
  if (sinkEnd > from) max = maskScores(problem, workspace, row, view, firstKey, from, sinkEnd);
  const start = larger(from, view.start - firstKey);
  const end = smaller(to, view.end - firstKey);
  if (end > start) {
    max = larger(max, maskScores(problem, workspace, row, view, firstKey, start, end));
  }
  if (view.span.tree >= 0) {
    const first = larger(from, view.end - firstKey);
    if (to > first) max = larger(max, maskTree(problem, workspace, row, view, firstKey, first, to));
  }
  if (workspace.runCounts[row] === 0) return;
  max = workspace.states.raise(row, max);
  // No maximum but visible keys: all scores so far are NaN, and shall be seen.
  if (problem.stats === null) {
    weighRow(workspace, row, max);
  } else {
    observeSpread(workspace, row, max);
    weighRow(workspace, row, max);
    observeMasses(problem.stats, workspace, row, view, firstKey);
  }
  if (problem.dropout !== null) dropWeights(problem.dropout, workspace, row, view, firstKey);
}

/** Scores [from, to) after softcap, bias and ALiBi; appends what stays visible to the row's runs; the maximum but for NaN. */
function maskScores(
  problem: Problem,
  workspace: Workspace,
  row: number,
  view: RowView,
  firstKey: number,
  from: number,
  to: number,
): number {
  const scores = workspace.scores.data;
  const base = row * workspace.scores.stride;
  const { softcap } = problem;
  const mask = problem.mask === null ? null : problem.mask.data;
  const maskRow = planeRow(problem.mask, view) + firstKey;
  const bias = problem.bias === null ? null : problem.bias.data;
  const biasRow = planeRow(problem.bias, view) + firstKey;
  const slope = problem.alibiSlopes === null ? 0 : problem.alibiSlopes[view.head];
  const distance = firstKey - view.position;
  let max = -Infinity;
  let runStart = -1;
  for (let slot = from; slot < to; slot++) {
    let score = scores[base + slot];
    if (softcap > 0) score = softcap * tanh(score / softcap);
    if (bias !== null) score = biased(score, bias[biasRow + slot]);
    if (slope !== 0) score += slope * (distance + slot);
    if (score === -Infinity || (mask !== null && mask[maskRow + slot] === 0)) {
      if (runStart >= 0) appendRun(workspace, row, runStart, slot);
      runStart = -1;
    } else {
      scores[base + slot] = score;
      if (score > max) max = score;
      if (runStart < 0) runStart = slot;
    }
  }
  if (runStart >= 0) appendRun(workspace, row, runStart, to);
  return max;
}

/** The same of keys of the step itself, where its tokens are a tree. */
function maskTree(
  problem: Problem,
  workspace: Workspace,
  row: number,
  view: RowView,
  firstKey: number,
  from: number,
  to: number,
): number {
  const scores = workspace.scores.data;
  const base = row * workspace.scores.stride;
  const { softcap } = problem;
  const slope = problem.alibiSlopes === null ? 0 : problem.alibiSlopes[view.head];
  const { trees, tree, queryTokens } = view.span;
  // Slot s is token `firstToken + s` of the entry.
  const firstToken = firstKey - view.end;
  const seen = tree + queryTokens * (1 + view.query) + firstToken;
  const depths = tree + firstToken;
  const depth = trees[tree + view.query];
  let max = -Infinity;
  for (let slot = from; slot < to; slot++) {
    if (trees[seen + slot] === 0) continue;
    let score = scores[base + slot];
    if (softcap > 0) score = softcap * tanh(score / softcap);
    if (slope !== 0) score += slope * (trees[depths + slot] - depth);
    if (score === -Infinity) continue;
    scores[base + slot] = score;
    if (score > max) max = score;
    appendRun(workspace, row, slot, slot + 1);
  }
  return max;
}

/** A bias of -Infinity hides the key, NaN or Infinity in it included. */
function biased(score: number, bias: number): number {
  return bias === -Infinity ? bias : score + bias;
}

/** Element (batch, head, query, 0) of a mask or bias. */
function planeRow(plane: Broadcast<unknown> | null, view: RowView): number {
  if (plane === null) return 0;
  const { span, head, query } = view;
  return span.batch * plane.batchStride + head * plane.headStride + query * span.keyTokens;
}

/** True if the mask lets the row see none of slots [from, to). */
export function maskHides(
  mask: Broadcast<Uint8Array>,
  view: RowView,
  firstKey: number,
  from: number,
  to: number,
): boolean {
  const row = planeRow(mask, view) + firstKey;
  for (let i = row + from; i < row + to; i++) if (mask.data[i] !== 0) return false;
  return true;
}

/** Joins the run to the one before where they touch: rows that see a whole stretch then have one run. */
function appendRun(workspace: Workspace, row: number, from: number, to: number): void {
  const { runs, runCounts } = workspace;
  const next = row * RUN_STRIDE + 2 * runCounts[row];
  if (runCounts[row] > 0 && runs[next - 1] === from) {
    runs[next - 1] = to;
    return;
  }
  runs[next] = from;
  runs[next + 1] = to;
  runCounts[row]++;
}

function weighRow(workspace: Workspace, row: number, max: number): void {
  const { runs, runCounts, states } = workspace;
  const scores = workspace.scores.data;
  const base = row * workspace.scores.stride;
  let sum = states.sum[row];
  const firstRun = row * RUN_STRIDE;
  for (let run = firstRun; run < firstRun + 2 * runCounts[row]; run += 2) {
    const end = base + runs[run + 1];
    for (let i = base + runs[run]; i < end; i++) {
      const weight = exp(scores[i] - max);
      scores[i] = weight;
      sum += weight;
    }
  }
  states.sum[row] = sum;
}

/** Dropout acts on the weights only: the denominator counts all of them. */
function dropWeights(
  dropout: NonNullable<Problem['dropout']>,
  workspace: Workspace,
  row: number,
  view: RowView,
  firstKey: number,
): void {
  const { runs, runCounts } = workspace;
  const scores = workspace.scores.data;
  const base = row * workspace.scores.stride;
  const threshold = Math.floor(dropout.probability * 2 ** 32);
  const scale = 1 / (1 - dropout.probability);
  const rowKey = mix(mix(mix(dropout.seed ^ view.span.batch) ^ view.head) ^ view.query);
  const firstRun = row * RUN_STRIDE;
  for (let run = firstRun; run < firstRun + 2 * runCounts[row]; run += 2) {
    for (let slot = runs[run]; slot < runs[run + 1]; slot++) {
      const keep = mix(rowKey ^ (firstKey + slot)) >= threshold;
      scores[base + slot] = keep ? scores[base + slot] * scale : 0;
    }
  }
}

/** The finaliser of murmur3, 32 bits. */
function mix(x: number): number {
  x ^= x >>> 16;
  x = imul(x, 0x85ebca6b);
  x ^= x >>> 13;
  x = imul(x, 0xc2b2ae35);
  return (x ^ (x >>> 16)) >>> 0;
}
