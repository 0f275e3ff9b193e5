/** Option values: what is taken, and that everything else is refused with what was expected. */
import {
  cacheDTypes,
  decimal,
  headShape,
  integer,
  listOf,
  matrixShape,
  oneOf,
} from '../../../lib/cli/options';

test('whole numbers within their range', () => {
  const parse = integer({ min: 1, max: 64 });
  expect(['1', '64', '+7'].map(parse)).toEqual([1, 64, 7]);
  for (const text of ['0', '65', '1.5', '1e1', '', 'x', '9007199254740993', 'Infinity', '0x10']) {
    expect(() => parse(text)).toThrow('Expected a whole number >= 1 and <= 64.');
  }
});

test('decimal numbers within their range', () => {
  const parse = decimal({ above: 0, max: 2 });
  expect(['0.5', '2', '1e-3', '.25'].map(parse)).toEqual([0.5, 2, 0.001, 0.25]);
  for (const text of ['0', '-1', '2.1', 'NaN', 'Infinity', '', ' ', '1,5', 'x']) {
    expect(() => parse(text)).toThrow('Expected a number > 0 and <= 2.');
  }
});

test('one of a set', () => {
  const parse = oneOf('f32', 'f16');
  expect(parse('f16')).toBe('f16');
  for (const text of ['F16', 'f8', '', 'constructor']) {
    expect(() => parse(text)).toThrow('Expected one of f32, f16.');
  }
});

test('comma lists drop repeats and refuse empty items', () => {
  const parse = listOf(integer({ min: 1 }));
  expect(parse('512,4096')).toEqual([512, 4096]);
  expect(parse('2, 1,2')).toEqual([2, 1]);
  for (const text of ['', '1,', ',1', '1;2', '1,x']) expect(() => parse(text)).toThrow('Expected');
});

test('head shapes', () => {
  expect(headShape('71/1/64')).toEqual({ heads: 71, kvHeads: 1, headDim: 64 });
  for (const text of ['32/8', '32/8/128/1', '0/1/64', '8/0/64', '8/8/0', 'a/b/c', '8/8/-1', '']) {
    expect(() => headShape(text)).toThrow('such as 32/8/128');
  }
  expect(() => headShape('9/2/64')).toThrow('9 is not one of 2');
});

test('how a cache stores keys and values', () => {
  expect(cacheDTypes('bf16')).toEqual({ k: 'bf16', v: 'bf16' });
  expect(cacheDTypes('q8/q4')).toEqual({ k: 'q8', v: 'q4' });
  for (const text of ['', 'q9', 'q8/', '/q8', 'q8/q4/q4', 'q8/q9', 'q8 q4']) {
    expect(() => cacheDTypes(text)).toThrow(
      'Expected one of f32, f16, bf16, q8, q4, or two as K/V',
    );
  }
});

test('matrix shapes', () => {
  expect(matrixShape('1536x576')).toEqual({ rows: 1536, columns: 576 });
  for (const text of ['1536', '0x576', '1536X576', '1x2x3', '']) {
    expect(() => matrixShape(text)).toThrow('such as 4096x11008');
  }
});
