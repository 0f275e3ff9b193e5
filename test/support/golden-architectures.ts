/** Goldens of architectures (test/golden/README.md): reading them, and holding the runner of this process against them. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../lib/backend/package-root';
import type { KvSequence } from '../../lib/kv-cache/kv-cache';
import { loadArchitecture } from '../../lib/model/arch';
import { openCheckpoint } from '../../lib/model/checkpoint';
import type { LanguageModel } from '../../lib/model/types';

export const ARCHITECTURE_GOLDENS = join(packageRoot(), 'test', 'golden', 'arch');

export interface ArchitectureGolden {
  /** Versions of what computed it. */
  transformers: string;
  torch: string;
  prompt: number[];
  greedy: number[];
}

/** Errors are max |logit - golden's| / max(1, largest |golden's logit|), over every position of the prompt. */
export interface ArchitectureFigures {
  /** The whole prompt at once. */
  whole: number;
  /** In chunks of seven tokens. */
  chunks: number;
  /** Token by token. */
  single: number;
  /** Beside two others of its kind in each step, all three at paces of their own: the worst of the three. */
  together: number;
  /** Tokens that follow the prompt, each the most likely after those before it. */
  greedy: number[];
}

/** The names of all goldens. */
export function goldenArchitectures(): string[] {
  return readdirSync(ARCHITECTURE_GOLDENS).sort();
}

export function readArchitectureGolden(name: string): ArchitectureGolden {
  const path = join(ARCHITECTURE_GOLDENS, name, 'golden.json');
  return JSON.parse(readFileSync(path, 'utf8')) as ArchitectureGolden;
}

/** Logits [prompt, vocabulary] as transformers has them. */
export function goldenLogits(name: string): Float32Array {
  const bytes = readFileSync(join(ARCHITECTURE_GOLDENS, name, 'logits.f32'));
  return new Float32Array(Uint8Array.from(bytes).buffer);
}

/** What the runner makes of a golden's checkpoint, or of another form of it at `path`. */
export function measureArchitecture(
  name: string,
  path = join(ARCHITECTURE_GOLDENS, name),
): ArchitectureFigures {
  const golden = readArchitectureGolden(name);
  const expected = goldenLogits(name);
  const { config, weights } = openCheckpoint(path);
  try {
    const model = loadArchitecture(config, weights);
    try {
      const error = (chunk: number): number =>
        withSequence(model, golden.prompt.length, (sequence) =>
          logitsError(forwardInChunks(model, sequence, golden.prompt, chunk), expected),
        );
      return {
        whole: error(golden.prompt.length),
        chunks: error(7),
        single: error(1),
        together: togetherError(model, golden.prompt, expected),
        greedy: greedyTokens(model, golden),
      };
    } finally {
      model.dispose();
    }
  } finally {
    weights.close();
  }
}

function withSequence<T>(
  model: LanguageModel,
  capacity: number,
  use: (sequence: KvSequence) => T,
): T {
  const cache = model.createCache({ capacity });
  try {
    return use(cache.sequence());
  } finally {
    cache.dispose();
  }
}

/** Logits of every position, [ids, vocabulary]. */
function forwardInChunks(
  model: LanguageModel,
  sequence: KvSequence,
  ids: readonly number[],
  chunk: number,
): Float32Array {
  const { vocabSize } = model.config;
  const logits = new Float32Array(ids.length * vocabSize);
  for (let from = 0; from < ids.length; from += chunk) {
    const part = ids.slice(from, from + chunk);
    logits.set(model.forward(part, sequence, 'all'), from * vocabSize);
  }
  return logits;
}

function togetherError(
  model: LanguageModel,
  prompt: readonly number[],
  expected: Float32Array,
): number {
  const { vocabSize } = model.config;
  const paces = [5, 1, 11];
  const cache = model.createCache({ capacity: prompt.length, sequences: paces.length });
  try {
    const texts = paces.map((pace) => ({
      pace,
      sequence: cache.sequence(),
      logits: new Float32Array(prompt.length * vocabSize),
    }));
    for (;;) {
      const going = texts.filter(({ sequence }) => sequence.length < prompt.length);
      if (going.length === 0) break;
      const runs = going.map(({ sequence, pace }) => {
        const ids = prompt.slice(sequence.length, sequence.length + pace);
        return { sequence, ids, want: 'all' as const };
      });
      const starts = going.map(({ sequence }) => sequence.length);
      const rows = runs.reduce((sum, { ids }) => sum + ids.length, 0);
      const out = new Float32Array(rows * vocabSize);
      model.step(runs, out);
      let at = 0;
      runs.forEach(({ ids }, i) => {
        const end = at + ids.length * vocabSize;
        going[i].logits.set(out.subarray(at, end), starts[i] * vocabSize);
        at = end;
      });
    }
    return Math.max(...texts.map(({ logits }) => logitsError(logits, expected)));
  } finally {
    cache.dispose();
  }
}

function greedyTokens(model: LanguageModel, { prompt, greedy }: ArchitectureGolden): number[] {
  return withSequence(model, prompt.length + greedy.length, (sequence) => {
    const tokens: number[] = [];
    let logits = model.forward(prompt, sequence, 'last');
    for (;;) {
      tokens.push(logits.indexOf(logits.reduce((a, b) => Math.max(a, b))));
      if (tokens.length === greedy.length) return tokens;
      logits = model.forward(tokens.slice(-1), sequence, 'last');
    }
  });
}

/** NaN where any logit is. */
function logitsError(logits: Float32Array, expected: Float32Array): number {
  if (logits.length !== expected.length) {
    throw new Error(`${logits.length} logits where ${expected.length} are expected`);
  }
  const largest = expected.reduce((most, x) => Math.max(most, Math.abs(x)), 1);
  return expected.reduce((most, x, i) => Math.max(most, Math.abs(x - logits[i])), 0) / largest;
}
