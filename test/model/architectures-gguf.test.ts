/**
 * GGUF files of the goldens' checkpoints, written by another program by llama.cpp's rules (scripts/make-golden-gguf.py):
 * told as Hugging Face does, they are the checkpoints that they were made from, and compute what those compute.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../lib/backend/package-root';
import { GgufFile } from '../../lib/format/gguf';
import { GGUF_ARCHITECTURES, ggufArchitecture } from '../../lib/model/gguf';
import { GgufMetadata } from '../../lib/model/gguf/metadata';
import { valuesOf } from '../../lib/model/gguf/rows';
import { GgufWeights } from '../../lib/model/gguf/weights';
import { openFolderWeights } from '../../lib/model/weights';
import {
  ARCHITECTURE_GOLDENS,
  measureArchitecture,
  readArchitectureGolden,
} from '../support/golden-architectures';
import { ARCHITECTURE_LOGITS } from '../tolerances';

const FOLDER = join(packageRoot(), 'test', 'golden', 'gguf');
const NAMES = readdirSync(FOLDER)
  .map((file) => file.replace(/\.gguf$/, ''))
  .sort();

/** ChatGLM2's own words for fields and tensors are older than those of `glm`, which GGUF is told in. */
const SAME_WORDS = NAMES.filter((name) => name !== 'chatglm2');

function withGguf<T>(
  name: string,
  use: (weights: GgufWeights, json: Record<string, unknown>) => T,
): T {
  const metadata = new GgufMetadata(new GgufFile(join(FOLDER, `${name}.gguf`)));
  try {
    const architecture = ggufArchitecture(metadata);
    return use(new GgufWeights(metadata, architecture), architecture.configJson(metadata));
  } finally {
    metadata.file.close();
  }
}

test.each(SAME_WORDS)('%s: every tensor is that of the checkpoint', (name) => {
  const folder = openFolderWeights(join(ARCHITECTURE_GOLDENS, name));
  withGguf(name, (weights) => {
    for (const [tensor, file] of folder.files) {
      const { shape } = file.tensors.get(tensor)!;
      const expected = valuesOf(folder.load(tensor, shape));
      expect([tensor, weights.has(tensor)]).toEqual([tensor, true]);
      const found = valuesOf(weights.load(tensor, shape));
      // 1 + w - 1 of a norm is rounded, all else is moved and no more.
      const most = /gemma.*norm\.weight$/.test(name + tensor) ? 2 ** -23 : 0;
      const error = expected.reduce((worst, x, i) => Math.max(worst, Math.abs(x - found[i])), 0);
      expect([tensor, error <= most, found.length]).toEqual([tensor, true, expected.length]);
    }
    expect(weights.has('model.layers.0.self_attn.nothing.weight')).toBe(false);
  });
  folder.close();
});

test.each(SAME_WORDS)('%s: the config says what config.json says', (name) => {
  const path = join(ARCHITECTURE_GOLDENS, name, 'config.json');
  const expected = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
  withGguf(name, (_, json) => {
    const both = Object.keys(expected).filter((key) => key in json && expected[key] !== null);
    expect(both.length).toBeGreaterThan(8);
    for (const key of both) {
      // A tensor of divisors says the same as Llama 3's numbers.
      if (name === 'llama3.2' && key === 'rope_scaling') continue;
      expectClose(key, json[key], expected[key]);
    }
  });
});

/** Numbers within f32, which GGUF has them in; lists and objects by what the expected one has. */
function expectClose(key: string, found: unknown, expected: unknown): void {
  if (typeof expected === 'number') {
    const value = Array.isArray(found) && found.length === 1 ? (found[0] as number) : found;
    expect([key, Math.abs((value as number) / expected - 1) < 1e-6 || value === expected]).toEqual([
      key,
      true,
    ]);
  } else if (typeof expected === 'object' && expected !== null) {
    for (const [inner, value] of Object.entries(expected)) {
      const name = inner === 'type' ? 'rope_type' : inner;
      expectClose(`${key}.${inner}`, (found as Record<string, unknown>)[name], value);
    }
  } else {
    expect([key, found]).toEqual([key, expected]);
  }
}

test.each(NAMES)('%s: logits and greedy tokens', (name) => {
  const { greedy, ...errors } = measureArchitecture(name, join(FOLDER, `${name}.gguf`));
  for (const [way, error] of Object.entries(errors)) {
    // Not <=, which NaN would pass as a difference.
    if (!(error <= ARCHITECTURE_LOGITS)) throw new Error(`${way}: logits are off by ${error}`);
  }
  expect(greedy).toEqual(readArchitectureGolden(name).greedy);
});

test('nobody is forgotten', () => {
  const architectures = NAMES.map((name) => withGguf(name, (_, json) => json.model_type as string));
  expect(NAMES.length).toBe(14);
  // Mistral differs from Mixtral by its experts, and from Llama by its window.
  expect(new Set(architectures).size).toBe(Object.keys(GGUF_ARCHITECTURES).length + 1);
});
