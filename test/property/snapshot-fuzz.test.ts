/** A few thousand mutated snapshots; `npm run fuzz:snapshots` makes a million. */
import { samples } from '../support/samples';
import { fuzzSnapshots } from './snapshot-fuzz';

test('mutated snapshots are refused, or restore to a sequence that can be used', () => {
  const { restored, invalid, mismatched } = fuzzSnapshots(samples(3000), 1);
  // Everything was reached: checksums, the parser behind them, the comparison with the cache, the blocks.
  expect(invalid).toBeGreaterThan(samples(1000));
  expect(mismatched).toBeGreaterThan(samples(50));
  expect(restored).toBeGreaterThan(samples(200));
});
