import { strftime } from '../../../lib/model/strftime';

test('strftime writes what Python writes', () => {
  const date = new Date(2025, 2, 9, 14, 5, 7);
  // datetime(2025, 3, 9, 14, 5, 7).strftime(...)
  expect(strftime(date, '%Y-%m-%d %H:%M:%S')).toBe('2025-03-09 14:05:07');
  expect(strftime(date, '%d %b %Y, %A (%a) in %B')).toBe('09 Mar 2025, Sunday (Sun) in March');
  expect(strftime(date, '%I %p, day %j of %y, 100%% %Q')).toBe('02 PM, day 068 of 25, 100% %Q');
  expect(strftime(new Date(2024, 0, 1, 0), '%I %p %j')).toBe('12 AM 001');
});
