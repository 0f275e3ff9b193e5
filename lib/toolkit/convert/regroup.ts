/**
 * Which heads share a group: a partition into groups of equal size with as much similarity inside them as can be had,
 * sum over groups of s_ij of their pairs. Greedily first, then by exchanges of two heads for as long as one helps.
 */

/** Exchanges that gain less are noise, and could go round in circles. */
const LEAST_GAIN = 1e-9;

/** @param similarity [heads][heads], symmetric @returns groups in the order of their first heads, each ascending */
export function groupBySimilarity(
  similarity: readonly (readonly number[])[],
  groups: number,
): number[][] {
  const partition = greedyGroups(similarity, similarity.length / groups);
  while (exchange(similarity, partition));
  for (const group of partition) group.sort((a, b) => a - b);
  return partition.sort((a, b) => a[0] - b[0]);
}

/** Neighbours together. */
export function adjacentGroups(heads: number, groups: number): number[][] {
  const size = heads / groups;
  return Array.from({ length: groups }, (_, g) =>
    Array.from({ length: size }, (_, i) => g * size + i),
  );
}

/** Each group begins with the most similar pair that is left and takes what is most similar to it. */
function greedyGroups(similarity: readonly (readonly number[])[], size: number): number[][] {
  const left = new Set(similarity.keys());
  const groups: number[][] = [];
  while (left.size > 0) {
    const group: number[] = [];
    while (group.length < size) {
      const next =
        group.length === 0 ? inBestPair(similarity, left) : nearest(similarity, group, left);
      left.delete(next);
      group.push(next);
    }
    groups.push(group);
  }
  return groups;
}

function inBestPair(similarity: readonly (readonly number[])[], left: ReadonlySet<number>): number {
  const best = (i: number): number =>
    Math.max(...[...left].filter((j) => j !== i).map((j) => similarity[i][j]));
  return first(left, best);
}

function nearest(
  similarity: readonly (readonly number[])[],
  group: readonly number[],
  left: ReadonlySet<number>,
): number {
  return first(left, (i) => affinity(similarity, i, group));
}

/** The head of the largest score, the first of equals. */
function first(heads: Iterable<number>, score: (head: number) => number): number {
  let [best, bestScore] = [-1, -Infinity];
  for (const head of heads) {
    const value = score(head);
    if (best < 0 || value > bestScore) [best, bestScore] = [head, value];
  }
  return best;
}

/** Similarity of a head to the others of a group. */
function affinity(
  similarity: readonly (readonly number[])[],
  head: number,
  group: readonly number[],
): number {
  return group.reduce((sum, other) => sum + (other === head ? 0 : similarity[head][other]), 0);
}

/** Makes the exchanges that help, each pair of heads once; false where there were none. */
function exchange(similarity: readonly (readonly number[])[], groups: number[][]): boolean {
  let changed = false;
  groups.forEach((a, g) => {
    for (const b of groups.slice(g + 1)) {
      for (let i = 0; i < a.length; i++) {
        for (let j = 0; j < b.length; j++) {
          if (gain(similarity, a, i, b, j) <= LEAST_GAIN) continue;
          [a[i], b[j]] = [b[j], a[i]];
          changed = true;
        }
      }
    }
  });
  return changed;
}

/** What the partition wins where head i of a and head j of b change places. */
function gain(
  similarity: readonly (readonly number[])[],
  a: readonly number[],
  i: number,
  b: readonly number[],
  j: number,
): number {
  const [x, y] = [a[i], b[j]];
  const crossing = 2 * similarity[x][y];
  const now = affinity(similarity, x, a) + affinity(similarity, y, b);
  return affinity(similarity, y, a) + affinity(similarity, x, b) - crossing - now;
}
