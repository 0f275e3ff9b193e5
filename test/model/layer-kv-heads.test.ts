/** Models whose layers have different numbers of KV heads, from GGUF and from folders, against the float64 forward pass. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadModel } from '../../lib';
import { printed } from '../support/child';
import { decodeTensor, writeGguf, type GgufTensor } from '../support/gguf';
import { huggingFaceName, writeSafetensors } from '../support/reference-checkpoint';
import { referenceLogits, type ReferenceConfig } from '../support/reference-llama';
import { ggufMetadata, huggingFaceConfig, randomTensors } from '../support/tiny-llama';
import { MODEL_LOGITS } from '../tolerances';

const PLAN = [2, 6, 1];
const CONFIG: ReferenceConfig = {
  vocab: 32,
  hidden: 48,
  intermediate: 80,
  layers: 3,
  heads: 6,
  kvHeads: 6,
  layerKvHeads: PLAN,
  headDim: 16,
  eps: 1e-5,
  theta: 500,
  ropePairs: 'neighbours',
};
const IDS = Array.from({ length: 19 }, (_, i) => (i * i * 7) % 32);

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'gqa-layers-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

function expected(c: ReferenceConfig, tensors: GgufTensor[]): Float64Array {
  const values = new Map(
    tensors.map((t) => [t.name, decodeTensor(t.type, t.bytes, t.bytes.length / 4)]),
  );
  return referenceLogits(c, (name) => values.get(name)!, IDS);
}

async function expectLogits(path: string, reference: Float64Array): Promise<void> {
  const model = await loadModel(path);
  const native = await model.logits(IDS);
  expect(model.config).toMatchObject({ kvHeads: 6, layerKvHeads: PLAN });
  const [{ bytesPerToken }] = await model.compareCaches(IDS, [{ dtype: 'f16' }]);
  expect(bytesPerToken).toBe(2 * 2 * CONFIG.headDim * (2 + 6 + 1));
  await model.dispose();
  const program = `
    gqa.loadModel(${JSON.stringify(path)}).then(async (model) => {
      console.log(JSON.stringify([...await model.logits(${JSON.stringify(IDS)})]));
      await model.dispose();
    });`;
  const script = JSON.parse(printed(program, { GQA_BACKEND: 'js', GQA_ISA: '' })) as number[];
  const largest = reference.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
  for (const logits of [native, script]) {
    const error = reference.reduce((m, x, i) => Math.max(m, Math.abs(x - logits[i])), 0);
    expect(error / largest).toBeLessThan(MODEL_LOGITS);
  }
}

test('GGUF with a list of KV heads', async () => {
  const tensors = randomTensors(CONFIG, 'F32', 3);
  const path = join(folder, 'model.gguf');
  writeFileSync(path, writeGguf({ metadata: ggufMetadata(CONFIG), tensors }));
  await expectLogits(path, expected(CONFIG, tensors));
});

/** Each layer's heads as often as makes six of them. */
function repeated({ name, shape, type, bytes }: GgufTensor): GgufTensor {
  const match = /^blk\.(\d)\.attn_[kv]/.exec(name);
  if (match === null) return { name, shape, type, bytes };
  const kvHeads = PLAN[Number(match[1])];
  const size = bytes.length / kvHeads;
  const copies = Array.from({ length: 6 }, (_, stored) => {
    const head = Math.floor(stored / (6 / kvHeads));
    return bytes.subarray(head * size, (head + 1) * size);
  });
  return { name, shape: [6 * CONFIG.headDim, shape[1]], type, bytes: Buffer.concat(copies) };
}

function writeFolder(name: string, tensors: GgufTensor[], c: ReferenceConfig): string {
  const path = join(folder, name);
  mkdirSync(path);
  const renamed = tensors.map((t) => ({ ...t, name: huggingFaceName(t.name), dtype: t.type }));
  writeFileSync(join(path, 'model.safetensors'), writeSafetensors(renamed));
  const config = { ...huggingFaceConfig(c), gqa_kv_heads: PLAN };
  writeFileSync(join(path, 'config.json'), JSON.stringify(config));
  return path;
}

describe('a folder that repeats heads', () => {
  // The reference knows nothing of the plan: to it this is a plain model of six KV heads.
  const plain: ReferenceConfig = { ...CONFIG, layerKvHeads: undefined, ropePairs: 'halves' };
  const tensors = randomTensors(CONFIG, 'F32', 3).map(repeated);

  test('gives the logits of the plain model', () =>
    expectLogits(writeFolder('repeated', tensors, plain), expected(plain, tensors)));

  test('whose copies differ is refused', async () => {
    const changed = tensors.map((t) => {
      if (t.name !== 'blk.2.attn_v.weight') return t;
      const bytes = Uint8Array.from(t.bytes);
      bytes[bytes.length - 1] ^= 1;
      return { ...t, bytes };
    });
    const path = writeFolder('changed', changed, plain);
    await expect(loadModel(path)).rejects.toMatchObject({ code: 'INVALID_FILE' });
  });
});
