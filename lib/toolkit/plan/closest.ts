/** Names that a mistyped one may have meant. */

/** Insertions, deletions and replacements of characters that turn one text into the other (Levenshtein). */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, row[j] + 1, next[j - 1] + 1));
    }
    row = next;
  }
  return row[b.length];
}

const MOST = 3;
/** Longer names than any are no mistyped ones. */
const LONGEST = 64;

/** How far a name is from a known one, or from its beginning. */
function distance(name: string, known: string): number {
  const begin = known.slice(0, name.length + 1);
  return Math.min(editDistance(name, known), editDistance(name, begin));
}

/** The nearest few of the names: those that differ in few characters, or begin so. */
export function closest(name: string, names: readonly string[]): string[] {
  const plain = (text: string): string => text.replace(/[^a-z0-9]/g, '');
  const asked = plain(name);
  if (asked.length < 3 || asked.length > LONGEST) return [];
  return names
    .map((known) => ({ known, far: distance(asked, plain(known)) }))
    .filter(({ far }) => far <= asked.length / 3)
    .sort((a, b) => a.far - b.far)
    .slice(0, MOST)
    .map(({ known }) => known);
}
