/** Every architecture's goldens, folders and GGUF files, over mapped weights: the bits of packed ones, and nothing packed. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { backend } from '../../lib';
import { getBackend } from '../../lib/backend';
import { openCheckpoint, type Checkpoint } from '../../lib/model/checkpoint';
import { loadWeights, type WeightFacts } from '../../lib/model/weight-cache';
import { ARCHITECTURE_GOLDENS, goldenArchitectures } from '../support/golden-architectures';
import { goldenFolder } from '../support/package';

const { kind, reason } = backend();
const withAddon = kind === 'native' ? describe : describe.skip;
if (kind !== 'native') process.stderr.write(`skipped: mapped weights: ${reason}\n`);

const GGUF = join(goldenFolder, 'gguf');
const PATHS = [
  ...goldenArchitectures().map((name) => join(ARCHITECTURE_GOLDENS, name)),
  ...readdirSync(GGUF).map((file) => join(GGUF, file)),
];
const IDS = [1, 7, 3, 12, 5];
let cache: string;

beforeAll(() => {
  cache = mkdtempSync(join(tmpdir(), 'gqa-mapped-'));
});
afterAll(() => rmSync(cache, { recursive: true, force: true }));

/** Facts, logits and how many matrices were packed. */
function start(
  checkpoint: Checkpoint,
  folder: string | false,
): { facts: WeightFacts; logits: number[]; packed: number } {
  const packing = jest.spyOn(getBackend(), 'packWeights');
  try {
    const { model, weights: facts } = loadWeights(checkpoint, 'exact', folder);
    const packed = packing.mock.calls.length;
    const sequence = model.createCache({ capacity: 16 }).sequence();
    const logits = [...model.forward(IDS, sequence, 'all')];
    model.dispose();
    return { facts, logits, packed };
  } finally {
    packing.mockRestore();
  }
}

withAddon('mapped weights', () => {
  test.each(PATHS.map((path) => relative(goldenFolder, path)))('%s', (name) => {
    const checkpoint = openCheckpoint(join(goldenFolder, name));
    try {
      const plain = start(checkpoint, false);
      const first = start(checkpoint, cache);
      const second = start(checkpoint, cache);
      expect(plain.packed).toBeGreaterThan(1);
      expect(first.packed).toBe(plain.packed);
      expect(second.facts.reason).toBe('found in the cache');
      expect(second.packed).toBe(0);
      expect(first.logits).toEqual(plain.logits);
      expect(second.logits).toEqual(plain.logits);
    } finally {
      checkpoint.weights.close();
    }
  });
});
