/** Which runs of blocks sequences share. */
import fc from 'fast-check';
import { sharedRuns } from '../../../lib/kv-cache/cascade';
import type { SharedRun } from '../../../lib/kv-cache/cascade';

function runsOf(tables: readonly string[], least: number): SharedRun[] {
  const sequences = tables.map((table) => ({
    idOf: (ordinal: number) => table.charCodeAt(ordinal),
    blocks: table.length,
  }));
  return sharedRuns(sequences, least);
}

test.each([
  ['nobody shares', ['abc', 'def', ''], 1, []],
  ['all share all', ['abcd', 'abcd'], 2, [[0, 4, [0, 1]]]],
  ['one goes on', ['abcdx', 'abcdyz', 'abcd'], 2, [[0, 4, [0, 1, 2]]]],
  [
    'runs nest',
    ['abcd', 'abce', 'abzz', 'abzzq'],
    2,
    [
      [0, 2, [0, 1, 2, 3]],
      [2, 4, [2, 3]],
    ],
  ],
  [
    'what is too short for all may do for some',
    ['abcd', 'abcde', 'axyz', 'axyz', 'ab'],
    3,
    [
      [0, 4, [0, 1]],
      [0, 4, [2, 3]],
    ],
  ],
  ['a later agreement counts for nothing', ['abc', 'xbc'], 1, []],
])('%s', (_, tables, least, expected) => {
  expect(runsOf(tables, least).map(({ first, last, members }) => [first, last, members])).toEqual(
    expected,
  );
});

test('members hold the blocks of a run, runs of a sequence follow one another from the first block on', () => {
  const table = fc.array(fc.constantFrom('a', 'b'), { maxLength: 8 }).map((ids) => {
    // A block is held in common only by those who agree on all before it.
    return ids.map((_, i) => ids.slice(0, i + 1).join(''));
  });
  fc.assert(
    fc.property(
      fc.array(table, { maxLength: 7 }),
      fc.integer({ min: 1, max: 3 }),
      (given, least) => {
        const names = [...new Set(given.flat())];
        const tables = given.map((ids) => ids.map((id) => names.indexOf(id)));
        const sequences = tables.map((ids) => ({
          idOf: (ordinal: number) => ids[ordinal],
          blocks: ids.length,
        }));
        const ends = new Map<number, number>();
        for (const { first, last, members } of sharedRuns(sequences, least)) {
          expect(members.length).toBeGreaterThan(1);
          expect(last - first).toBeGreaterThanOrEqual(least);
          for (const member of members) {
            expect(ends.get(member) ?? 0).toBe(first);
            ends.set(member, last);
            expect(tables[member].slice(first, last)).toEqual(
              tables[members[0]].slice(first, last),
            );
            expect(tables[member].length).toBeGreaterThanOrEqual(last);
          }
        }
        // Two that agree on enough are never left alone.
        tables.forEach((ids, i) => {
          const most = Math.max(
            0,
            ...tables.map((other, j) => (i === j ? 0 : agreement(ids, other))),
          );
          expect(ends.get(i) ?? 0).toBeLessThanOrEqual(most);
          if (most >= least) expect(ends.get(i) ?? 0).toBeGreaterThan(most - least);
        });
      },
    ),
  );
});

function agreement(a: readonly number[], b: readonly number[]): number {
  let length = 0;
  while (length < Math.min(a.length, b.length) && a[length] === b[length]) length++;
  return length;
}
