/**
 * Which blocks several sequences hold in common from their first token on: attention reads such a run once for all of
 * them (cascade attention) and merges the states. Runs nest: all share the system prompt, some a longer prefix too.
 */

/** Sequences `members` hold blocks [first, last) of each other's tables. */
export interface SharedRun {
  first: number;
  last: number;
  members: readonly number[];
}

/** A sequence's block of an ordinal, and how many leading ordinals may be shared. */
export interface SharedBlocks {
  idOf(ordinal: number): number;
  blocks: number;
}

/** Runs of at least `least` blocks, the outer ones before those that continue them. */
export function sharedRuns(sequences: readonly SharedBlocks[], least: number): SharedRun[] {
  const runs: SharedRun[] = [];
  const all = sequences.map((_, i) => i);
  collect(sequences, all, 0, 0, least, runs);
  return runs;
}

/** Members hold the same blocks before `next`, and those before `first` are in a run already. */
function collect(
  sequences: readonly SharedBlocks[],
  members: readonly number[],
  first: number,
  next: number,
  least: number,
  runs: SharedRun[],
): void {
  const byBlock = new Map<number, number[]>();
  for (const member of members) {
    if (next >= sequences[member].blocks) continue;
    const id = sequences[member].idOf(next);
    const same = byBlock.get(id);
    if (same === undefined) byBlock.set(id, [member]);
    else same.push(member);
  }
  for (const same of byBlock.values()) {
    if (same.length < 2) continue;
    const last = commonEnd(sequences, same, next);
    const enough = last - first >= least;
    if (enough) runs.push({ first, last, members: same });
    collect(sequences, same, enough ? last : first, last, least, runs);
  }
}

/** The first ordinal from `first` on that not all members have in common. */
function commonEnd(
  sequences: readonly SharedBlocks[],
  members: readonly number[],
  first: number,
): number {
  const [one, ...others] = members;
  const most = Math.min(...members.map((member) => sequences[member].blocks));
  let last = first;
  while (last < most) {
    const id = sequences[one].idOf(last);
    if (others.some((other) => sequences[other].idOf(last) !== id)) break;
    last++;
  }
  return last;
}
