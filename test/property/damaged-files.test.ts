/**
 * Model files with bytes changed, cut out, put in or cut off: each loads, or is refused by a GqaError. Never another
 * error, never a crash, never an allocation that the file's own size does not justify.
 */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { GqaError } from '../../lib';
import { packageRoot } from '../../lib/backend/package-root';
import { loadArchitecture } from '../../lib/model/arch';
import { openCheckpoint } from '../../lib/model/checkpoint';
import { writeGguf, type GgufType } from '../support/gguf';
import { huggingFaceName, writeSafetensors } from '../support/reference-checkpoint';
import type { ReferenceConfig } from '../support/reference-llama';
import { samples } from '../support/samples';
import { ggufMetadata, huggingFaceConfig, randomTensors } from '../support/tiny-llama';

const CONFIG: ReferenceConfig = {
  vocab: 6,
  hidden: 32,
  intermediate: 32,
  layers: 1,
  heads: 2,
  kvHeads: 1,
  headDim: 32,
  eps: 1e-5,
  theta: 10000,
  ropePairs: 'neighbours',
};

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'gqa-damaged-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Opens a checkpoint, builds its tokenizer, loads its weights and computes a token; true if all of it worked. */
function works(path: string): boolean {
  try {
    const { config, weights, tokenizer } = openCheckpoint(path);
    try {
      tokenizer();
      const model = loadArchitecture(config, weights);
      const cache = model.createCache({ capacity: 4, dtype: 'f32' });
      expect(model.forward([1], cache.sequence(), 'last')).toHaveLength(config.vocabSize);
      cache.dispose();
      model.dispose();
    } finally {
      weights.close();
    }
    return true;
  } catch (error) {
    if (!(error instanceof GqaError) || error.code === 'INTERNAL') throw error;
    return false;
  }
}

type Damage =
  | { kind: 'change'; at: number; to: number[] }
  | { kind: 'cut out'; at: number; bytes: number }
  | { kind: 'put in'; at: number; what: number[] }
  | { kind: 'cut off'; at: number };

/** Places are parts of the header, where the lengths and offsets are, rather than of the weights. */
const place = fc.double({ min: 0, max: 0.9999, noNaN: true });
const bytes: fc.Arbitrary<number[]> = fc.oneof(
  fc.array(fc.nat({ max: 255 }), { minLength: 1, maxLength: 9 }),
  // Lengths as hostile files have them.
  fc.constantFrom<number[][]>(
    [255, 255, 255, 255, 255, 255, 255, 255],
    [255, 255, 255, 255, 255, 255, 255, 127],
    [0, 0, 0, 0, 0, 0, 0, 128],
    [0, 0, 0, 128],
    [0, 0, 0, 0, 1, 0, 0, 0],
    [0],
    [0x39, 0x39, 0x39, 0x39, 0x39, 0x39, 0x39, 0x39, 0x39],
    [0x2d],
  ),
);
const damages: fc.Arbitrary<Damage[]> = fc.array(
  fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({ kind: fc.constant('change' as const), at: place, to: bytes }),
    },
    {
      weight: 1,
      arbitrary: fc.record({
        kind: fc.constant('cut out' as const),
        at: place,
        bytes: fc.integer({ min: 1, max: 40 }),
      }),
    },
    {
      weight: 1,
      arbitrary: fc.record({ kind: fc.constant('put in' as const), at: place, what: bytes }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('cut off' as const), at: place }) },
  ),
  { minLength: 1, maxLength: 3 },
);

function damaged(file: Buffer, headerBytes: number, list: Damage[]): Buffer {
  return list.reduce((b, damage) => {
    const at = Math.min(b.length, Math.floor(damage.at * headerBytes));
    switch (damage.kind) {
      case 'change':
        return Buffer.concat([
          b.subarray(0, at),
          Buffer.from(damage.to),
          b.subarray(at + damage.to.length),
        ]);
      case 'cut out':
        return Buffer.concat([b.subarray(0, at), b.subarray(at + damage.bytes)]);
      case 'put in':
        return Buffer.concat([b.subarray(0, at), Buffer.from(damage.what), b.subarray(at)]);
      case 'cut off':
        return b.subarray(0, Math.floor(damage.at * b.length));
    }
  }, file);
}

/** Memory may not grow by what a header claims: the whole model is a few hundred KB. */
function expectFrugal(run: () => void): void {
  const before = process.memoryUsage();
  run();
  const after = process.memoryUsage();
  expect(after.arrayBuffers - before.arrayBuffers).toBeLessThan(256 * 2 ** 20);
}

test.each(['F32', 'Q4_0', 'Q8_0'] as GgufType[])('GGUF of %s', (type) => {
  const tensors = randomTensors(CONFIG, type, 1);
  const metadata = ggufMetadata(CONFIG);
  metadata.set('tokenizer.ggml.model', 'gpt2');
  metadata.set('tokenizer.ggml.pre', 'smollm');
  metadata.set('tokenizer.ggml.tokens', ['a', 'b', 'c', 'ab', '<s>', '</s>']);
  metadata.set('tokenizer.ggml.token_type', [1, 1, 1, 1, 3, 3]);
  metadata.set('tokenizer.ggml.merges', ['a b']);
  metadata.set('tokenizer.ggml.bos_token_id', 4);
  metadata.set('tokenizer.ggml.eos_token_id', 5);
  const file = writeGguf({ metadata, tensors });
  const headerBytes = file.length - tensors.reduce((sum, t) => sum + t.bytes.length, 0);
  const path = join(folder, `${type}.gguf`);
  const loads = (content: Buffer) => {
    writeFileSync(path, content);
    return works(path);
  };
  expect(loads(file)).toBe(true);
  expectFrugal(() =>
    fc.assert(
      fc.property(damages, (list) => void loads(damaged(file, headerBytes, list))),
      { numRuns: samples(400), seed: 99 },
    ),
  );
});

const GOLDENS = join(packageRoot(), 'test', 'golden', 'gguf');
/** Keys, names, shapes: of these files nearly all of the first bytes. */
const GOLDEN_HEADER = 6_000;

test.each(readdirSync(GOLDENS))('GGUF of another architecture: %s', (name) => {
  const file = readFileSync(join(GOLDENS, name));
  const path = join(folder, name);
  const loads = (content: Buffer) => {
    writeFileSync(path, content);
    return works(path);
  };
  expect(loads(file)).toBe(true);
  expectFrugal(() =>
    fc.assert(
      fc.property(damages, (list) => void loads(damaged(file, GOLDEN_HEADER, list))),
      { numRuns: samples(40), seed: 97 },
    ),
  );
});

test('Hugging Face folder', () => {
  const tensors = randomTensors(CONFIG, 'F32', 2).map(({ name, shape, bytes }) => ({
    name: huggingFaceName(name),
    shape,
    dtype: 'F32',
    bytes,
  }));
  const weights = writeSafetensors(tensors);
  const headerBytes = 8 + Number(weights.readBigUInt64LE(0));
  const config = Buffer.from(JSON.stringify(huggingFaceConfig(CONFIG)));
  const path = join(folder, 'model');
  mkdirSync(path);
  const loads = (header: Buffer, json: Buffer) => {
    writeFileSync(join(path, 'model.safetensors'), header);
    writeFileSync(join(path, 'config.json'), json);
    return works(path);
  };
  expect(loads(weights, config)).toBe(true);
  expectFrugal(() =>
    fc.assert(
      fc.property(damages, damages, fc.nat({ max: 2 }), (first, second, which) => {
        loads(
          which === 1 ? weights : damaged(weights, headerBytes, first),
          which === 0 ? config : damaged(config, config.length, second),
        );
      }),
      { numRuns: samples(800), seed: 98 },
    ),
  );
});
