/** Draft tokens as a tree. */
import { TokenTree } from '../../../lib/kv-cache/tree';
import { errorOf } from '../refusals';

// 0 -> 1 -> 3, 0 -> 2, and 4 beside 0 with its child 5
const PARENTS = [-1, 0, 0, 1, -1, 4];

function rowsSeen(window: number, sinkDepth = 0): string[] {
  const tree = TokenTree.read(PARENTS, 6, 'tree');
  const numbers = new Int32Array(6 * 7).fill(9);
  tree.write(numbers, 0, window, sinkDepth);
  expect([...numbers.slice(0, 6)]).toEqual([0, 1, 1, 2, 0, 1]);
  return Array.from({ length: 6 }, (_, i) => numbers.slice(6 + 6 * i, 12 + 6 * i).join(''));
}

test('a token sees its ancestors and itself', () => {
  expect(rowsSeen(Infinity)).toEqual(['100000', '110000', '101000', '110100', '000010', '000011']);
});

test('as far back as the window goes', () => {
  expect(rowsSeen(2)).toEqual(['100000', '110000', '101000', '010100', '000010', '000011']);
  expect(rowsSeen(1)).toEqual(['100000', '010000', '001000', '000100', '000010', '000001']);
});

test('and a sink from any depth', () => {
  expect(rowsSeen(1, 1)).toEqual(['100000', '110000', '101000', '100100', '000010', '000011']);
  expect(rowsSeen(1, 2)).toEqual(['100000', '110000', '101000', '110100', '000010', '000011']);
});

test.each([
  [[0, 1, 3], true],
  [[], true],
  [[4, 5], true],
  [[1, 3], false],
  [[0, 3], false],
  [[0, 4], false],
  [[6], false],
  [[-1], false],
  [[0, 0.5], false],
])('%p leads down from a root: %p', (rows, expected) => {
  expect(TokenTree.read(PARENTS, 6, 'tree').isPath(rows)).toBe(expected);
});

test.each([
  ['INVALID_ARGUMENT tree', [-1, 1]],
  ['INVALID_ARGUMENT tree', [-1, 2]],
  ['INVALID_ARGUMENT tree', [-2, 0]],
  ['INVALID_ARGUMENT tree', [-1, NaN]],
  ['INVALID_ARGUMENT tree', [-1]],
  ['INVALID_ARGUMENT tree', 7],
  ['INVALID_ARGUMENT tree', null],
])('refuses with %s: %p', (expected, parents) => {
  expect(errorOf(() => TokenTree.read(parents as number[], 2, 'tree'))).toBe(expected);
});

test('has 64 tokens at most', () => {
  const chain = Array.from({ length: 65 }, (_, i) => i - 1);
  expect(errorOf(() => TokenTree.read(chain, 65, 'tree'))).toBe('OUT_OF_RANGE tree');
  expect(TokenTree.read(chain.slice(0, 64), 64, 'tree').depths[63]).toBe(63);
});
