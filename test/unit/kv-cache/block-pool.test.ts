/** Blocks and their holders. */
import fc from 'fast-check';
import { BlockPool } from '../../../lib/kv-cache/block-pool';

test('a block is free again when its last holder lets go', () => {
  const pool = new BlockPool(2);
  const [a, b] = [pool.take(), pool.take()];
  expect([pool.used, pool.highWater]).toEqual([2, 2]);
  expect(() => pool.take()).toThrow('empty');
  pool.hold(a);
  expect([pool.isShared(a), pool.isShared(b)]).toEqual([true, false]);
  pool.drop(a);
  expect([pool.isShared(a), pool.used]).toEqual([false, 2]);
  pool.drop(a);
  expect(pool.used).toBe(1);
  expect(pool.take()).toBe(a);
  expect(pool.highWater).toBe(2);
});

test('holders are counted exactly, whatever the order', () => {
  fc.assert(
    fc.property(fc.array(fc.nat({ max: 2 ** 20 }), { maxLength: 200 }), (choices) => {
      const pool = new BlockPool(20);
      const held: number[] = [];
      let most = 0;
      for (const choice of choices) {
        const distinct = new Set(held).size;
        const kind = choice % 3;
        if (kind === 0 && distinct < 20) held.push(pool.take());
        else if (kind === 1 && held.length > 0) {
          const id = held[choice % held.length];
          pool.hold(id);
          held.push(id);
        } else if (held.length > 0) pool.drop(held.splice(choice % held.length, 1)[0]);
        most = Math.max(most, new Set(held).size);
        expect([pool.used, pool.highWater]).toEqual([new Set(held).size, most]);
        for (let id = 0; id < 20; id++) {
          expect(pool.holdersOf(id)).toBe(held.filter((h) => h === id).length);
        }
      }
    }),
  );
});
