import { backend } from '../../lib';
import { getBackend } from '../../lib/backend';
import { cpuFeatures, currentTarget, vectorTargets } from './targets';

const target = currentTarget();

test(`the package runs on the target it was told to: ${target ?? 'its own choice'}`, () => {
  const info = backend();
  expect(info.reason).not.toBe('');
  expect(info.threads).toBeGreaterThanOrEqual(1);
  if (target === undefined) return;
  expect(info.isa).toBe(target);
  expect(info.kind).toBe(target === 'js' ? 'js' : 'native');
});

/** The CPU features that have an instruction for each kind of dot product. */
const DOT_FEATURES = { bf16: /bf16/, int8: /vnni|dotprod/ } as const;

test('probes say what they did, and nothing for what the target lacks', () => {
  const probes = getBackend();
  const { isa, kind, reason, threads } = probes.info;
  expect(probes.probeFma(1000)).toBeGreaterThan(0);
  const features = cpuFeatures(vectorTargets(process.arch).get(isa) ?? []);
  for (const [dot, feature] of Object.entries(DOT_FEATURES)) {
    const operations = probes.probeDot(dot as keyof typeof DOT_FEATURES, 1000);
    // At least the iterations asked for, of 16 lanes, two operations a product, 2 or 4 products a lane.
    const least = 1000 * 16 * 2 * (dot === 'bf16' ? 2 : 4);
    if (features.some((name) => feature.test(name))) {
      expect(operations).toBeGreaterThanOrEqual(least);
    } else {
      expect(operations).toBe(0);
    }
  }
  const hasTiles = kind === 'native' && reason.includes('amx-bf16');
  if (!hasTiles) expect(probes.probeTiles(100)).toBe(0);
  const waits = Array.from({ length: 100 }, () => probes.probeWake());
  const came = waits.filter((seconds) => seconds !== null);
  for (const seconds of came) expect(seconds).toBeGreaterThan(0);
  if (threads === 1) expect(came).toEqual([]);
});
