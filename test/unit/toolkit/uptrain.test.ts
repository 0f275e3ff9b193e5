/** Uptraining from checkpoint to checkpoint, in its worker thread: what is written, stopping and resuming, the page. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadModel } from '../../../lib';
import { createSink, openSource } from '../../../lib/model/checkpoint-io';
import { SafetensorsFile } from '../../../lib/format/safetensors';
import type { TaskContext } from '../../../lib/toolkit/task';
import { uptrain, type UptrainOptions, type UptrainResult } from '../../../lib/toolkit/uptrain';
import { uptrainPage } from '../../../lib/toolkit/uptrain/report';
import { runUptrain } from '../../../lib/toolkit/uptrain/run';
import { goldenFolder } from '../../support/package';
import { expectRefused } from '../../support/refusals';
import { writeTinyCheckpoint } from '../../support/tiny-checkpoint';

const TEXT = join(goldenFolder, 'stories-sample.txt');
let folder: string;
let options: UptrainOptions;
let result: UptrainResult;

const at = (name: string) => join(folder, name);
const weightsOf = (name: string) => readFileSync(join(at(name), 'model.safetensors'));

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'gqa-uptrain-'));
  const model = writeTinyCheckpoint(at('model'));
  writeFileSync(join(model, 'README.md'), '# A tiny model\n');
  const source = openSource(model);
  createSink(at('gguf-in.gguf'), source).commit();
  source.close();
  options = {
    ...{ model, out: at('out'), text: TEXT, evalText: TEXT, learningRate: 0.01, saveEvery: 2 },
    ...{ alpha: 0.5, budget: 24 * 2 * 32, batch: 2, window: 32, seed: 1, evalEvery: 6 },
  };
  result = await uptrain(options);
});
afterAll(() => rmSync(folder, { recursive: true }));

test('the result tells how the loss fell', () => {
  const { crossEntropy, evaluations, losses, tokens, settings } = result;
  expect([settings.steps, tokens, losses.length]).toEqual([12, 768, 12]);
  expect(evaluations.map(({ step }) => step)).toEqual([0, 6, 12]);
  expect(crossEntropy!.before).toBe(evaluations[0].crossEntropy);
  expect(crossEntropy!.after).toBeLessThan(crossEntropy!.before - 0.2);
  expect(losses.at(-1)!.loss).toBeLessThan(losses[0].loss - 0.2);
});

test('the output is a checkpoint in the dtype of the source, with a card and the result', async () => {
  const before = new SafetensorsFile(join(at('model'), 'model.safetensors'));
  const after = new SafetensorsFile(join(at('out'), 'model.safetensors'));
  const typesOf = ({ tensors }: SafetensorsFile) =>
    [...tensors].map(([name, { dtype, shape }]) => `${name} ${dtype} ${shape.join()}`).sort();
  expect(typesOf(after)).toEqual(typesOf(before));
  for (const file of [before, after]) file.close();
  expect(JSON.parse(readFileSync(join(at('out'), 'gqa_uptrain.json'), 'utf8'))).toEqual(result);
  const card = readFileSync(join(at('out'), 'README.md'), 'utf8');
  expect(card).toMatch(/^# A tiny model\n\n## Uptraining\n/);
  expect(readdirSync(folder).sort()).toEqual(['gguf-in.gguf', 'model', 'out']);

  const model = await loadModel(at('out'));
  expect(model.tokenizer.encode('Once').length).toBeGreaterThan(0);
  await model.generate('Once', { maxTokens: 2 }).next();
  await model.dispose();
});

test('stopped and resumed, it writes the same bytes', async () => {
  const out = at('resumed');
  let done = 0;
  const context: TaskContext = {
    progress: (event) => (done = event.done),
    cancelled: () => done === 5,
    throwIfCancelled: () => {
      if (done === 5) throw new Error('stopped');
    },
  };
  expect(() => runUptrain({ ...options, out }, context)).toThrow('stopped');
  expect(readdirSync(folder).sort()).toEqual(['gguf-in.gguf', 'model', 'out', 'resumed.training']);
  await expectRefused('OUTPUT_EXISTS', /resumed.training$/, () => uptrain({ ...options, out }));
  const other = { ...options, out, batch: 1, resume: true };
  await expectRefused('RESUME_MISMATCH', 'batch', () => uptrain(other));

  const resumed = await uptrain({ ...options, out, resume: true });
  expect(resumed.losses).toEqual(result.losses);
  expect(resumed.evaluations).toEqual(result.evaluations);
  expect(existsSync(at('resumed.training'))).toBe(false);
  expect(weightsOf('resumed').equals(weightsOf('out'))).toBe(true);
});

test('keys and values alone, with a teacher: all else is copied bit by bit', async () => {
  const out = at('kv');
  await uptrain({
    ...{ ...options, out, train: 'kv', evalText: undefined, resume: true },
    teacher: at('model'),
  });
  const [before, after] = ['model', 'kv'].map(
    (name) => new SafetensorsFile(join(at(name), 'model.safetensors')),
  );
  for (const name of before.tensors.keys()) {
    const same = Buffer.from(before.read(name).data.buffer).equals(
      Buffer.from(after.read(name).data.buffer),
    );
    expect([name, same]).toEqual([name, !/[kv]_proj/.test(name)]);
  }
  for (const file of [before, after]) file.close();
});

test('from and to GGUF, the same bits', async () => {
  const short = { ...options, evalText: undefined, budget: 6 * 2 * 32 };
  await uptrain({ ...short, out: at('six-steps') });
  await uptrain({ ...short, out: at('six-steps.gguf') });
  await uptrain({ ...short, model: at('gguf-in.gguf'), out: at('again.gguf') });
  const folderWeights = openSource(at('six-steps'));
  for (const name of ['six-steps.gguf', 'again.gguf']) {
    const ggufWeights = openSource(at(name));
    for (const tensor of folderWeights.tensors.keys()) {
      const [expected, actual] = [folderWeights, ggufWeights].map((s) => s.read(tensor));
      expect([name, tensor, actual.dtype]).toEqual([
        name,
        tensor,
        actual.shape.length > 1 ? 'bf16' : 'f32',
      ]);
      if (actual.dtype === expected.dtype) expect(actual.data).toEqual(expected.data);
    }
    ggufWeights.close();
  }
  folderWeights.close();
});

test('a plan of KV heads by layer is kept', async () => {
  const plan = [2, 1];
  const source = openSource(at('model'));
  const changed = ['k', 'v'].map((kind) => `model.layers.1.self_attn.${kind}_proj.weight`);
  const sink = createSink(at('plan-in'), source, { layerKvHeads: plan, changed });
  for (const name of changed) {
    const { data, dtype, shape } = source.read(name);
    sink.write(name, {
      shape: [shape[0] / 2, shape[1]],
      dtype,
      data: data.slice(0, data.length / 2),
    });
  }
  sink.commit();
  source.close();
  await uptrain({ ...options, model: at('plan-in'), out: at('plan'), budget: 4 * 2 * 32 });
  const trained = openSource(at('plan'));
  expect(trained.config.layerKvHeads).toEqual(plan);
  for (const name of changed) expect(trained.read(name).shape).toEqual([4, 8]);
  trained.close();
});

test('the page shows the losses and fetches nothing', () => {
  const page = uptrainPage(result);
  expect(page).toContain('<svg');
  expect(page).toContain('stories-sample.txt');
  expect(page).not.toMatch(/https?:\/\/(?!www\.w3\.org)/);
});

describe('refused, and nothing written', () => {
  const write = (name: string, contents: string | Buffer) => {
    writeFileSync(at(name), contents);
    return at(name);
  };
  const refuse = async (
    code: Parameters<typeof expectRefused>[0],
    argument: string | RegExp,
    changes: Partial<UptrainOptions>,
  ) => {
    const before = readdirSync(folder);
    await expectRefused(code, argument, () =>
      uptrain({ ...options, out: at('never'), ...changes }),
    );
    expect(readdirSync(folder)).toEqual(before);
  };

  test('an output that is there, or lies in the source', async () => {
    await refuse('OUTPUT_EXISTS', /out$/, { out: at('out') });
    await refuse('INVALID_ARGUMENT', 'out', { out: join(at('model'), 'inside') });
  });

  test('texts that are none', async () => {
    await refuse('INVALID_TEXT', /empty$/, { text: write('empty', '\n \n') });
    await refuse('INVALID_TEXT', /bytes$/, { text: write('bytes', Buffer.of(0xff, 0xfe, 65)) });
    await refuse('INVALID_TEXT', /short$/, { text: write('short', 'Once upon a time.') });
    await refuse('INVALID_TEXT', /missing$/, { text: at('missing') });
  });

  test('models that cannot be trained on', async () => {
    const damaged = 'model.layers.1.self_attn.k_proj.weight';
    const broken = writeTinyCheckpoint(at('broken'), { damaged });
    await refuse('NON_FINITE', damaged, { model: broken });
    await refuse('NON_FINITE', damaged, { teacher: broken });
    await refuse('INVALID_ARGUMENT', 'path', { model: at('nowhere') });
    await refuse('INVALID_ARGUMENT', 'options.out', { out: '' });
  });

  test('training that diverges', () => refuse('NON_FINITE', 'loss', { learningRate: 1e30, saveEvery: 100 })); // prettier-ignore
});
