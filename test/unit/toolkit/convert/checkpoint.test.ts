/** Whole conversions: what is written is the model that the report speaks of. */
import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { mkdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { convertCheckpoint, damagePage, loadModel, type ConvertOptions } from '../../../../lib';
import { embeddedModel } from '../../../support/package';
import { Random } from '../../../support/random';
import { writeSafetensors, huggingFaceName } from '../../../support/reference-checkpoint';
import type { ReferenceConfig } from '../../../support/reference-llama';
import { expectRefused } from '../../../support/refusals';
import { huggingFaceConfig, randomTensors } from '../../../support/tiny-llama';

const STORY =
  'The little boat was old. It went to the sea every day, and the fish were happy to see it. One day the wind was strong.';

let folder: string;
let text: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'gqa-convert-'));
  text = join(folder, 'text.txt');
  writeFileSync(text, STORY);
});
afterAll(() => rmSync(folder, { recursive: true }));

const inFolder = (name: string): string => join(folder, name);
const convert = (output: string, options: Partial<ConvertOptions> = {}, input = embeddedModel) =>
  convertCheckpoint(input, output, { method: 'mean', kvHeads: 1, ...options });

/** Cross-entropy of the story by the runner. */
async function scoreOf(
  path: string,
): Promise<{ crossEntropy: number; layerKvHeads: readonly number[] }> {
  const model = await loadModel(path);
  const { tokenizer } = model;
  const ids = [
    tokenizer.bosTokenId!,
    ...tokenizer.encode(STORY, { bos: false }),
    tokenizer.eosTokenId!,
  ];
  const { meanNll } = await model.score(ids);
  await model.dispose();
  return { crossEntropy: meanNll, layerKvHeads: model.config.layerKvHeads };
}

test('a folder with one number of KV heads, and the report of what it predicts', async () => {
  const out = inFolder('mqa');
  const stages = new Set<string>();
  const report = await convert(out, {
    method: 'fitted',
    text,
    onProgress: ({ stage }) => stages.add(stage),
  });
  expect(stages).toContain('converting');
  const [before, after] = [await scoreOf(embeddedModel), await scoreOf(out)];
  expect(report.crossEntropy!.before).toBeCloseTo(before.crossEntropy, 4);
  expect(report.crossEntropy!.after).toBeCloseTo(after.crossEntropy, 4);
  expect(after.layerKvHeads).toEqual([1, 1, 1, 1, 1, 1]);
  expect(report.bytesPerToken).toEqual({ before: 6 * 2 * 2 * 32 * 2, after: 6 * 2 * 1 * 32 * 2 });
  expect(report.kl).toBeGreaterThan(0);
  expect(report.layers).toHaveLength(6);
  for (const { outputError, groups } of report.layers) {
    expect(outputError).toBeGreaterThan(0);
    expect(outputError).toBeLessThan(1);
    expect(groups).toEqual([[0, 1]]);
  }
  const config = JSON.parse(readFileSync(join(out, 'config.json'), 'utf8')) as object;
  expect(config).toMatchObject({ num_key_value_heads: 1, num_attention_heads: 6 });
  expect(readFileSync(join(out, 'README.md'), 'utf8')).toContain('cross-entropy');
  const page = damagePage(report);
  expect(page).toContain('<svg');
  expect(page).not.toMatch(/https?:\/\/(?!www\.w3\.org)/);
});

test('a plan for each layer, as GGUF and as a folder that repeats heads', async () => {
  const plan = [2, 1, 2, 1, 1, 2];
  const [file, dir] = [inFolder('plan.gguf'), inFolder('plan')];
  const report = await convert(file, { kvHeads: plan, text });
  await convert(dir, { kvHeads: plan });
  for (const path of [file, dir]) {
    const { crossEntropy, layerKvHeads } = await scoreOf(path);
    expect(layerKvHeads).toEqual(plan);
    expect(crossEntropy).toBeCloseTo(report.crossEntropy!.after, 4);
  }
  expect(report.layers.map(({ outputError }) => outputError! > 0)).toEqual(
    plan.map((heads) => heads === 1),
  );
});

/** A model with biases whose KV heads 2 and 3 are copies of heads 1 and 0. */
function writeCopies(path: string): void {
  const c: ReferenceConfig = {
    vocab: 2048,
    hidden: 32,
    intermediate: 48,
    layers: 2,
    heads: 4,
    kvHeads: 4,
    headDim: 8,
    eps: 1e-5,
    theta: 500,
    ropePairs: 'halves',
  };
  const random = new Random(2);
  const tensors = randomTensors(c, 'F32', 1).map(({ name, shape, bytes }) => ({
    name: huggingFaceName(name),
    shape,
    dtype: 'F32',
    bytes: Buffer.from(bytes),
  }));
  for (const { name } of [...tensors]) {
    if (!name.includes('self_attn')) continue;
    const data = Float32Array.from(random.normals(32));
    const bias = name.replace('weight', 'bias');
    tensors.push({ name: bias, shape: [32], dtype: 'F32', bytes: Buffer.from(data.buffer) });
  }
  for (const { name, bytes } of tensors) {
    if (!/[kv]_proj/.test(name)) continue;
    const size = bytes.length / 4;
    bytes.copyWithin(2 * size, size, 2 * size);
    bytes.copyWithin(3 * size, 0, size);
  }
  mkdirSync(path);
  writeFileSync(join(path, 'model.safetensors'), writeSafetensors(tensors));
  const config = { ...huggingFaceConfig(c), attention_bias: true };
  writeFileSync(join(path, 'config.json'), JSON.stringify(config));
  for (const name of ['tokenizer.json', 'tokenizer_config.json']) {
    copyFileSync(join(embeddedModel, name), join(path, name));
  }
}

test('biases go with their heads; copies of heads are found and cost nothing', async () => {
  const source = inFolder('copies');
  writeCopies(source);
  for (const method of ['aligned', 'fitted', 'mean'] as const) {
    const options = { method, kvHeads: 2, regroup: true, text };
    const report = await convert(inFolder(`copies-${method}`), options, source);
    for (const { groups, outputError, keyError, valueError } of report.layers) {
      expect(groups).toEqual([
        [0, 3],
        [1, 2],
      ]);
      // 'fitted' keeps a thousandth of what folding gave, which is exact here.
      expect(outputError).toBeLessThan(1e-4);
      expect(keyError).toBeLessThan(1e-3);
      expect(method === 'fitted' ? 0 : valueError).toBeLessThan(1e-3);
    }
    const { before, after } = report.crossEntropy!;
    expect(after).toBeCloseTo(before, 3);
  }
});

test('without a text there are errors of weights alone', async () => {
  const report = await convert(inFolder('no-text'), { method: 'aligned' });
  expect(report).toMatchObject({ crossEntropy: null, kl: null, text: null, calibration: null });
  for (const { outputError, keyError, valueError } of report.layers) {
    expect(outputError).toBeNull();
    expect(keyError).toBeGreaterThan(0);
    expect(valueError).toBeGreaterThan(0);
  }
});

test('what cannot be converted is refused, and nothing is written', async () => {
  const out = inFolder('refused');
  const before = readdirSync(folder);
  await expectRefused('HEADS_NOT_DIVISIBLE', 'kvHeads', () => convert(out, { kvHeads: 4 }));
  await expectRefused('INVALID_SHAPE', 'kvHeads', () => convert(out, { kvHeads: [1, 2] }));
  await expectRefused('OUT_OF_RANGE', 'options.kvHeads', () => convert(out, { kvHeads: 0 }));
  await expectRefused('INVALID_ARGUMENT', 'options.method', () =>
    convert(out, { method: 'best' as 'mean' }),
  );
  await expectRefused('INVALID_TEXT', /none.txt$/, () =>
    convert(out, { text: inFolder('none.txt') }),
  );
  await expectRefused('INVALID_ARGUMENT', 'out', () => convert(embeddedModel));
  await expectRefused('OUTPUT_EXISTS', /text.txt$/, () => convert(text));
  const signal = AbortSignal.abort();
  await expect(convert(out, { signal })).rejects.toThrow(/abort/i);
  expect(readdirSync(folder)).toEqual(before);
});

test('weights that are no numbers are refused by name', async () => {
  const source = inFolder('nan');
  writeCopies(source);
  const file = join(source, 'model.safetensors');
  const bytes = readFileSync(file);
  const header = bytes.toString('utf8', 8, 8 + Number(bytes.readBigUInt64LE()));
  const name = 'model.layers.1.self_attn.v_proj.weight';
  const entries = JSON.parse(header) as Record<string, { data_offsets: [number, number] }>;
  bytes.writeFloatLE(NaN, 8 + header.length + entries[name].data_offsets[0] + 40);
  writeFileSync(file, bytes);
  const out = inFolder('nan-out');
  await expectRefused('NON_FINITE', name, () => convert(out, {}, source));
  expect(existsSync(out)).toBe(false);
  expect(readdirSync(folder).filter((entry) => entry.includes('partial'))).toEqual([]);
});
