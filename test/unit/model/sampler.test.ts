import fc from 'fast-check';
import { GqaError } from '../../../lib/core/errors';
import { argmax, Sampler, type Sampling } from '../../../lib/model/sampler';

const GREEDY: Sampling = {
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
  seed: 1,
};
const WARM = { ...GREEDY, temperature: 1 };

function sampler(options: Partial<Sampling>, vocabSize: number): Sampler {
  return new Sampler(vocabSize, { ...WARM, ...options });
}

/** Logits of these probabilities. */
function logitsOf(probabilities: readonly number[]): Float32Array {
  return Float32Array.from(probabilities, Math.log);
}

function counts(draws: number, options: Partial<Sampling>, logits: Float32Array): number[] {
  const chooser = sampler(options, logits.length);
  const seen = new Array<number>(logits.length).fill(0);
  for (let i = 0; i < draws; i++) seen[chooser.choose(logits)]++;
  return seen;
}

/** The tokens that the filters leave, by sorting: the definition, step by step. */
function survivors(probabilities: number[], topK: number, topP: number, minP: number): number[] {
  let ids = probabilities.map((_, id) => id).filter((id) => probabilities[id] > 0);
  ids.sort((a, b) => probabilities[b] - probabilities[a] || a - b);
  if (topK > 0) ids = ids.slice(0, topK);
  const whole = ids.reduce((sum, id) => sum + probabilities[id], 0);
  let mass = 0;
  ids = ids.filter((id, i) => {
    const keep = i === 0 || mass < topP * whole;
    mass += probabilities[id];
    return keep || topP === 1;
  });
  return ids.filter((id) => probabilities[id] >= minP * probabilities[ids[0]]);
}

describe('Sampler', () => {
  it('takes the largest logit at temperature 0, the lower id where equal', () => {
    expect(new Sampler(4, GREEDY).choose(new Float32Array([1, 3, 3, 2]))).toBe(1);
    expect(argmax(new Float32Array([-Infinity, -Infinity, -5]))).toBe(2);
  });

  it('draws in proportion to the probabilities', () => {
    const probabilities = [0.5, 0.25, 0.2, 0.05];
    const draws = 20_000;
    const seen = counts(draws, {}, logitsOf(probabilities));
    seen.forEach((count, id) => {
      const p = probabilities[id];
      // 5 standard deviations.
      expect(Math.abs(count - draws * p)).toBeLessThan(5 * Math.sqrt(draws * p * (1 - p)));
    });
  });

  it('sharpens below temperature 1 as softmax(logits / t) says', () => {
    const draws = 20_000;
    const [a, b] = counts(draws, { temperature: 0.5 }, logitsOf([2 / 3, 1 / 3]));
    expect(a + b).toBe(draws);
    expect(Math.abs(a / draws - 0.8)).toBeLessThan(0.015);
  });

  it.each<[string, Partial<Sampling>, number[]]>([
    ['top-k', { topK: 2 }, [0, 1]],
    ['top-p, the crossing token included', { topP: 0.6 }, [0, 1]],
    ['top-p that the first token fills', { topP: 0.5 }, [0]],
    ['top-p 0', { topP: 0 }, [0]],
    ['min-p', { minP: 0.39 }, [0, 1, 2]],
    ['top-p of what top-k leaves', { topK: 2, topP: 0.66 }, [0]],
    ['min-p of what top-p leaves', { topP: 0.9, minP: 0.45 }, [0, 1]],
    ['top-k beyond the vocabulary', { topK: 99 }, [0, 1, 2, 3]],
  ])('%s', (_, options, expected) => {
    const seen = counts(500, options, logitsOf([0.5, 0.25, 0.2, 0.05]));
    expect(seen.flatMap((count, id) => (count > 0 ? id : []))).toEqual(expected);
  });

  it('chooses only what every filter leaves, whatever they are', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 40 }), { minLength: 1, maxLength: 30 }),
        fc.nat(12),
        fc.nat(98).map((n) => n / 100),
        fc.nat(9).map((n) => n / 10),
        fc.nat(),
        (raw, topK, topP, minP, seed) => {
          const weights = raw.map((n, i) => (i === 0 ? n + 1 : n));
          const chosen = sampler({ topK, topP, minP, seed }, weights.length).choose(
            logitsOf(weights),
          );
          // Logits are f32: a bound may be missed by their rounding.
          const left = survivors(weights, topK, topP * 1.0001, minP * 0.9999);
          expect(left).toContain(chosen);
        },
      ),
    );
  });

  it('repeats itself for a seed', () => {
    const logits = logitsOf([0.3, 0.3, 0.2, 0.2]);
    const run = (seed: number) => {
      const chooser = sampler({ seed }, 4);
      return Array.from({ length: 50 }, () => chooser.choose(logits)).join('');
    };
    expect(run(9)).toBe(run(9));
    expect(run(9)).not.toBe(run(10));
  });

  it('makes tokens of the text less likely, once each, positive and negative logits alike', () => {
    const logits = new Float32Array([2, 1.9, -1, -1.1]);
    const chooser = new Sampler(4, { ...GREEDY, repetitionPenalty: 1.2 });
    expect(chooser.choose(logits)).toBe(0);
    chooser.see(0);
    chooser.see(0);
    expect(chooser.choose(logits)).toBe(1); // 2 / 1.2 = 1.67, not 2 / 1.44
    const low = new Sampler(2, { ...GREEDY, repetitionPenalty: 1.2 });
    low.see(0);
    expect(low.choose(new Float32Array([-1, -1.1]))).toBe(1); // -1 * 1.2 = -1.2
    expect([...logits]).toEqual([...new Float32Array([2, 1.9, -1, -1.1])]);
  });

  it('never chooses NaN or -Infinity, and Infinity only where there is one', () => {
    const odd = new Float32Array([NaN, -Infinity, 1, NaN, 1]);
    expect(new Sampler(5, GREEDY).choose(odd)).toBe(2);
    const seen = counts(300, {}, odd);
    expect(seen.map((count) => count > 0)).toEqual([false, false, true, false, true]);
    const infinite = new Float32Array([1, Infinity, NaN, Infinity]);
    expect(counts(300, { topP: 0.9 }, infinite).map((count) => count > 0)).toEqual([
      false,
      true,
      false,
      true,
    ]);
  });

  it.each([
    [NaN, NaN],
    [-Infinity, NaN],
  ])('refuses logits %d, %d', (a, b) => {
    const run = () => sampler({}, 2).choose(new Float32Array([a, b]));
    expect(run).toThrow(GqaError);
    expect(run).toThrow(/finite/);
  });

  it('stays finite at extreme temperatures', () => {
    const logits = new Float32Array([3e38, -3e38, 0]);
    expect(counts(20, { temperature: 1e-30 }, logits)).toEqual([20, 0, 0]);
    const hot = counts(600, { temperature: 3e38 }, new Float32Array([1, -1, 0]));
    expect(Math.min(...hot)).toBeGreaterThan(100);
  });

  it('works on a vocabulary of one token', () => {
    expect(sampler({ topK: 1, topP: 0.1, minP: 1 }, 1).choose(new Float32Array([-7]))).toBe(0);
  });
});
