/** Every weight type of GGUF and safetensors through loadModel, against a float64 forward pass over the same values. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadModel } from '../../lib';
import { decodeTensor, writeGguf, type GgufType } from '../support/gguf';
import { encodeSmall } from '../support/numbers';
import { huggingFaceName, writeSafetensors } from '../support/reference-checkpoint';
import { referenceLogits, type ReferenceConfig } from '../support/reference-llama';
import { ggufMetadata, huggingFaceConfig, randomTensors } from '../support/tiny-llama';
import { MODEL_LOGITS } from '../tolerances';

/** Dims that every block type divides; a head dim that is not hidden / heads. */
const CONFIG: ReferenceConfig = {
  vocab: 40,
  hidden: 256,
  intermediate: 512,
  layers: 2,
  heads: 6,
  kvHeads: 2,
  headDim: 128,
  eps: 1e-5,
  theta: 10000,
  ropePairs: 'neighbours',
};
const IDS = [3, 17, 5, 39, 0, 22, 22];

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'gqa-formats-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

async function expectReference(
  path: string,
  c: ReferenceConfig,
  values: Map<string, Float32Array>,
): Promise<void> {
  const expected = referenceLogits(c, (name) => values.get(name)!, IDS);
  const largest = expected.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
  const model = await loadModel(path);
  try {
    const logits = await model.logits(IDS);
    const error = expected.reduce((m, x, i) => Math.max(m, Math.abs(x - logits[i])), 0);
    expect(error / largest).toBeLessThan(MODEL_LOGITS);
    expect(largest).toBeGreaterThan(0.1);
  } finally {
    await model.dispose();
  }
}

test.each(['F32', 'F16', 'BF16', 'Q8_0', 'Q4_0', 'Q4_1', 'Q6_K'] as const)(
  'GGUF of %s',
  async (type) => {
    const tensors = randomTensors(CONFIG, type, 1);
    const path = join(folder, `${type}.gguf`);
    writeFileSync(path, writeGguf({ metadata: ggufMetadata(CONFIG), tensors }));
    const values = new Map(
      tensors.map((t) => [
        t.name,
        decodeTensor(
          t.type,
          t.bytes,
          t.shape.reduce((a, b) => a * b),
        ),
      ]),
    );
    await expectReference(path, CONFIG, values);
  },
);

test('GGUF of mixed types, embedding tied to the output', async () => {
  const kinds: GgufType[] = ['Q4_0', 'Q8_0', 'F16', 'Q6_K', 'BF16', 'Q4_1', 'F32'];
  const sources = kinds.map((kind, i) => randomTensors(CONFIG, kind, i));
  const tensors = sources[0]
    .map((_, i) => sources[i % kinds.length][i])
    .filter((t) => t.name !== 'output.weight');
  const path = join(folder, 'mixed.gguf');
  writeFileSync(path, writeGguf({ metadata: ggufMetadata(CONFIG), tensors }));
  const values = new Map(
    tensors.map((t) => [
      t.name,
      decodeTensor(
        t.type,
        t.bytes,
        t.shape.reduce((a, b) => a * b),
      ),
    ]),
  );
  values.set('output.weight', values.get('token_embd.weight')!);
  await expectReference(path, CONFIG, values);
});

test.each(['F32', 'F16', 'BF16'] as const)(
  'Hugging Face folder of %s, no tokenizer files',
  async (dtype) => {
    const c = { ...CONFIG, ropePairs: 'halves' as const };
    const tensors = randomTensors(c, dtype, 5);
    const values = new Map(
      tensors.map((t) => [
        t.name,
        decodeTensor(
          t.type,
          t.bytes,
          t.shape.reduce((a, b) => a * b),
        ),
      ]),
    );
    const renamed = tensors.map((t) => ({
      name: huggingFaceName(t.name),
      shape: t.shape,
      dtype,
      bytes: dtype === 'F32' || t.type !== 'F32' ? t.bytes : narrowed(values, t.name, dtype),
    }));
    const path = mkdtempSync(join(folder, 'hf-'));
    writeFileSync(join(path, 'model.safetensors'), writeSafetensors(renamed));
    writeFileSync(join(path, 'config.json'), JSON.stringify(huggingFaceConfig(c)));
    await expectReference(path, c, values);
    const model = await loadModel(path);
    expect(model.config).toMatchObject({
      headDim: 128,
      heads: 6,
      kvHeads: 2,
      hiddenSize: 256,
      vocabSize: 40,
    });
    await expect(model.generate('some text', { maxTokens: 1 }).next()).rejects.toMatchObject({
      code: 'NO_TOKENIZER',
    });
    await model.dispose();
  },
);

/** The vector of that name in 16 bits, its rounded values put into `values`. */
function narrowed(
  values: Map<string, Float32Array>,
  name: string,
  dtype: 'F16' | 'BF16',
): Uint8Array {
  const small = dtype === 'F16' ? 'f16' : 'bf16';
  const bits = Uint16Array.from(values.get(name)!, (x) => encodeSmall(x, small));
  const bytes = new Uint8Array(bits.buffer);
  values.set(name, decodeTensor(dtype, bytes, bits.length));
  return bytes;
}
