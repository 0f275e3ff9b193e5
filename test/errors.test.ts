/**
 * Every error code, by the calls that bring it: code, argument, and a message that names what was expected and what
 * came. What the caller owns is as it was before.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { attention, attentionAsync, KvCache, loadModel, mergeAttention, Tensor } from '../lib';
import type { AttentionOptions, GqaErrorCode, KvCacheOptions, Model } from '../lib';
import { runProgram } from './support/child';
import { embeddedModel, packageRoot } from './support/package';
import { expectRefused } from './support/refusals';

const zeros = (...shape: number[]) => Tensor.zeros(shape);
const SHAPE = [1, 2, 4, 8];
const q = () => zeros(...SHAPE);
const kv = () => zeros(1, 3, 2, 8);

/** attention over good inputs, but for these options. */
function withOptions(options: Record<string, unknown>): () => unknown {
  return () => attention(q(), kv(), kv(), options as AttentionOptions<'f32'>);
}

function cache(options: Partial<Record<keyof KvCacheOptions, unknown>> = {}): KvCache {
  return new KvCache({ layers: 2, kvHeads: 2, headDim: 8, capacity: 8, ...options } as KvCacheOptions);
}

/** A sequence of `tokens` tokens. */
function filled(tokens: number, options: Partial<KvCacheOptions> = {}) {
  const sequence = cache({ layers: 1, ...options }).sequence();
  sequence.append(0, zeros(tokens, 2, 8), zeros(tokens, 2, 8));
  return sequence;
}

function bits(values: number[]): Float32Array {
  return Float32Array.from(values);
}

type Row = [code: GqaErrorCode, argument: string | RegExp, what: string, action: () => unknown];

const TENSORS: Row[] = [
  ['INVALID_ARGUMENT', 'shape', 'a shape that is no array', () => Tensor.zeros(4 as never)],
  ['INVALID_ARGUMENT', 'values', 'values that are no array', () => Tensor.from(null as never, [1])],
  ['INVALID_ARGUMENT', 'values[1]', 'a value that is no number', () => Tensor.from([1, 'a' as never], [2])],
  ['INVALID_ARGUMENT', 'data', 'a view of a DataView', () => Tensor.view(new DataView(new ArrayBuffer(4)) as never, [1])],
  ['INVALID_DTYPE', 'dtype', 'an unknown dtype', () => Tensor.zeros([1], 'f64' as never)],
  ['INVALID_DTYPE', 'dtype', '16 bits of an unnamed dtype', () => Tensor.view(new Uint16Array(1) as never, [1])],
  ['INVALID_DTYPE', 'data', 'an array of another dtype', () => Tensor.view(new Float32Array(1) as never, [1], 'f16')],
  ['INVALID_DTYPE', 'dtype', 'a conversion to nothing known', () => zeros(1).to('q8' as never)],
  ['OUT_OF_RANGE', 'shape[0]', 'a negative size', () => Tensor.zeros([-1])],
  ['NON_FINITE', 'shape[0]', 'an infinite size', () => Tensor.zeros([Infinity])],
  ['INVALID_ARGUMENT', 'shape[1]', 'a broken size', () => Tensor.zeros([1, 1.5])],
  ['OUT_OF_RANGE', 'shape', 'more elements than a number counts', () => Tensor.zeros([2 ** 30, 2 ** 30])],
  ['OUT_OF_RANGE', 'values[0]', 'a value beyond its integer dtype', () => Tensor.from([256], [1], 'u8')],
  ['OUT_OF_MEMORY', 'shape', 'more than memory holds', () => Tensor.zeros([2 ** 45])],
  ['BUFFER_TOO_SMALL', 'data', 'a buffer smaller than its shape', () => Tensor.view(new Float32Array(3), [2, 2])],
  ['BUFFER_TOO_SMALL', 'values', 'fewer values than the shape', () => Tensor.from([1], [2])],
  ['INVALID_SHAPE', 'values', 'more values than the shape', () => Tensor.from([1, 2, 3], [2])],
  ['INVALID_SHAPE', 'shape', 'a reshape to another size', () => zeros(4).reshape([5])],
  ['BUFFER_DETACHED', 'data', 'a view of a detached buffer', () => {
    const data = new Float32Array(2);
    structuredClone(data.buffer, { transfer: [data.buffer] });
    return Tensor.view(data, [2]);
  }],
];

const ATTENTION: Row[] = [
  ['INVALID_ARGUMENT', 'q', 'a query that is no tensor', () => attention(new Float32Array(64) as never, kv(), kv())],
  ['INVALID_ARGUMENT', 'v', 'missing values', () => attention(q(), kv(), undefined as never)],
  ['INVALID_ARGUMENT', 'options', 'options that are no object', () => attention(q(), kv(), kv(), 3 as never)],
  ['INVALID_ARGUMENT', 'options.causal', 'causal of another type', withOptions({ causal: 1 })],
  ['INVALID_ARGUMENT', 'options.returnLse', 'returnLse of another type', withOptions({ returnLse: 'yes' })],
  ['INVALID_ARGUMENT', 'options.window', 'a broken window', withOptions({ window: 1.5 })],
  ['INVALID_ARGUMENT', 'options.scale', 'a scale of another type', withOptions({ scale: '1' })],
  ['INVALID_ARGUMENT', 'options.mask', 'a mask that is an array', withOptions({ mask: [1] })],
  ['INVALID_ARGUMENT', 'options.signal', 'a signal that is none', () =>
    attentionAsync(q(), kv(), kv(), { signal: {} as AbortSignal })],
  ['INVALID_RANK', 'q', 'a query of rank 3', () => attention(zeros(2, 4, 8), kv(), kv())],
  ['INVALID_RANK', 'k', 'keys of rank 5', () => attention(q(), zeros(1, 3, 2, 8, 1), kv())],
  ['INVALID_RANK', 'v', 'values of rank 1', () => attention(q(), kv(), zeros(48))],
  ['INVALID_RANK', 'options.bias', 'a bias of rank 2', withOptions({ bias: zeros(2, 3) })],
  ['INVALID_RANK', 'options.alibiSlopes', 'slopes of rank 2', withOptions({ alibiSlopes: zeros(1, 4) })],
  ['INVALID_SHAPE', 'k', 'another batch', () => attention(q(), zeros(2, 3, 2, 8), zeros(2, 3, 2, 8))],
  ['INVALID_SHAPE', 'k', 'another head dim', () => attention(q(), zeros(1, 3, 2, 7), kv())],
  ['INVALID_SHAPE', 'v', 'another number of keys', () => attention(q(), kv(), zeros(1, 4, 2, 8))],
  ['INVALID_SHAPE', 'v', 'another number of KV heads', () => attention(q(), kv(), zeros(1, 3, 4, 8))],
  ['INVALID_SHAPE', 'q', 'no heads', () => attention(zeros(1, 2, 0, 8), kv(), kv())],
  ['INVALID_SHAPE', 'k', 'no KV heads', () => attention(q(), zeros(1, 3, 0, 8), zeros(1, 3, 0, 8))],
  ['INVALID_SHAPE', 'v', 'values of no dims', () => attention(q(), kv(), zeros(1, 3, 2, 0))],
  ['INVALID_SHAPE', 'options.mask', 'a mask of another size', withOptions({ mask: Tensor.zeros([1, 1, 2, 4], 'u8') })],
  ['INVALID_SHAPE', 'options.bias', 'a bias of 2 heads for 4', withOptions({ bias: zeros(1, 2, 2, 3) })],
  ['INVALID_SHAPE', 'options.sinkLogits', 'a sink for each KV head', withOptions({ sinkLogits: zeros(2) })],
  ['INVALID_SHAPE', 'options.out', 'an output of another shape', withOptions({ out: zeros(1, 2, 4, 7) })],
  ['INVALID_DTYPE', 'q', 'integers', () => attention(Tensor.zeros(SHAPE, 'i32') as never, kv(), kv())],
  ['INVALID_DTYPE', 'k', 'keys of another dtype', () => attention(q(), kv().to('f16') as never, kv())],
  ['INVALID_DTYPE', 'v', 'values of another dtype', () => attention(q(), kv(), kv().to('bf16') as never)],
  ['INVALID_DTYPE', 'options.mask', 'a mask of f32', withOptions({ mask: zeros(1, 1, 2, 3) })],
  ['INVALID_DTYPE', 'options.bias', 'a bias of f16', withOptions({ bias: Tensor.zeros([1, 1, 2, 3], 'f16') })],
  ['INVALID_DTYPE', 'options.sinkLogits', 'sinks of u8', withOptions({ sinkLogits: Tensor.zeros([4], 'u8') })],
  ['INVALID_DTYPE', 'options.out', 'an output narrower than asked', withOptions({ out: Tensor.zeros(SHAPE, 'f16') })],
  ['HEADS_NOT_DIVISIBLE', 'q', '4 query heads for 3 KV heads', () => attention(q(), zeros(1, 3, 3, 8), zeros(1, 3, 3, 8))],
  ['HEADS_NOT_DIVISIBLE', 'q', 'more KV heads than query heads', () => attention(q(), zeros(1, 3, 8, 8), zeros(1, 3, 8, 8))],
  ['NON_FINITE', 'options.scale', 'scale NaN', withOptions({ scale: NaN })],
  ['NON_FINITE', 'options.scale', 'an infinite scale', withOptions({ scale: -Infinity })],
  ['NON_FINITE', 'options.scale', 'a scale that f32 cannot hold', withOptions({ scale: 1e300 })],
  ['NON_FINITE', 'options.softcap', 'softcap NaN', withOptions({ softcap: NaN })],
  ['NON_FINITE', 'options.window', 'window NaN', withOptions({ window: NaN })],
  ['NON_FINITE', 'options.sinkTokens', 'infinitely many sink tokens', withOptions({ sinkTokens: Infinity })],
  ['OUT_OF_RANGE', 'options.window', 'window 0', withOptions({ window: 0 })],
  ['OUT_OF_RANGE', 'options.window', 'a negative window', withOptions({ window: -3 })],
  ['OUT_OF_RANGE', 'options.sinkTokens', 'negative sink tokens', withOptions({ sinkTokens: -1 })],
  ['OUT_OF_RANGE', 'options.softcap', 'a negative softcap', withOptions({ softcap: -1 })],
  ['OUT_OF_RANGE', 'options.dropout.probability', 'dropout of 1', withOptions({ dropout: { probability: 1, seed: 1 } })],
  ['OVERLAP', 'options.out', 'an output that is the query', () => {
    const query = q();
    return attention(query, kv(), kv(), { out: query });
  }],
  ['OVERLAP', 'options.out', 'an output one element into the values', () => {
    const memory = new Float32Array(200);
    const values = Tensor.view(memory.subarray(0, 48), [1, 3, 2, 8]);
    return attention(q(), kv(), values, { out: Tensor.view(memory.subarray(47, 47 + 64), SHAPE) });
  }],
  ['OVERLAP', 'options.out', 'an output over the bias', () => {
    const memory = new Float32Array(64);
    const bias = Tensor.view(memory.subarray(10, 16), [1, 1, 2, 3]);
    return attention(q(), kv(), kv(), { bias, out: Tensor.view(memory, SHAPE) });
  }],
];

const MERGE: Row[] = [
  ['INVALID_ARGUMENT', 'parts', 'no parts', () => mergeAttention([])],
  ['INVALID_ARGUMENT', 'parts[0]', 'parts that are tensors', () => mergeAttention([q()] as never)],
  ['INVALID_SHAPE', 'parts[0].lse', 'an LSE of another shape', () => mergeAttention([{ out: q(), lse: zeros(1, 2, 3) }])],
  ['INVALID_SHAPE', 'parts[1].out', 'parts of two shapes', () =>
    mergeAttention([
      { out: q(), lse: zeros(1, 2, 4) },
      { out: zeros(1, 2, 4, 7), lse: zeros(1, 2, 4) },
    ])],
  ['INVALID_DTYPE', 'parts[1].out', 'parts of two dtypes', () =>
    mergeAttention([
      { out: q(), lse: zeros(1, 2, 4) },
      { out: q().to('f16') as never, lse: zeros(1, 2, 4) },
    ])],
];

const CACHE: Row[] = [
  ['INVALID_ARGUMENT', 'options', 'no options', () => new KvCache(undefined as never)],
  ['INVALID_ARGUMENT', 'options.layers', 'layers missing', () => cache({ layers: undefined })],
  ['OUT_OF_RANGE', 'options.layers', 'no layers', () => cache({ layers: 0 })],
  ['OUT_OF_RANGE', 'options.capacity', 'no capacity', () => cache({ capacity: 0 })],
  ['OUT_OF_RANGE', 'options.window', 'window 0', () => cache({ window: 0 })],
  ['OUT_OF_RANGE', 'options.sinkTokens', 'negative sinks', () => cache({ sinkTokens: -1 })],
  ['OUT_OF_RANGE', 'options.slack', 'negative slack', () => cache({ window: 4, slack: -1 })],
  ['OUT_OF_RANGE', 'options.capacity', 'window and sinks beyond the capacity', () => cache({ window: 6, sinkTokens: 3 })],
  ['OUT_OF_RANGE', 'options.capacity', 'slack beyond the capacity', () => cache({ window: 4, slack: 5 })],
  ['OUT_OF_RANGE', 'options.capacity', 'a size beyond what is addressed', () => cache({ capacity: 2 ** 50 })],
  ['OUT_OF_MEMORY', 'options.capacity', 'more than memory holds', () => cache({ layers: 1, capacity: 2 ** 34, headDim: 512, kvHeads: 64 })],
  ['INVALID_DTYPE', 'options.dtype', 'integer storage', () => cache({ dtype: 'i32' })],
  ['CAPACITY_EXCEEDED', 'cache', 'one sequence too many', () => {
    const c = cache();
    c.sequence();
    c.sequence();
  }],
  ['CAPACITY_EXCEEDED', 'k', 'a token too many', () => filled(8).append(0, zeros(1, 2, 8), zeros(1, 2, 8))],
  ['POSITION_EVICTED', 'q', 'a row whose window has gone', () =>
    attention(zeros(1, 3, 4, 8), filled(20, { window: 8, capacity: 8 }).layer(0))],
  ['SLACK_EXCEEDED', 'length', 'a rollback beyond the slack', () => filled(20, { window: 6, capacity: 8 }).truncate(17)],
  ['OUT_OF_RANGE', 'length', 'a rollback to beyond the end', () => filled(3).truncate(4)],
  ['LAYERS_UNEVEN', 'layer', 'a layer twice in a step', () => {
    const s = cache().sequence();
    s.append(0, zeros(1, 2, 8), zeros(1, 2, 8));
    s.append(0, zeros(1, 2, 8), zeros(1, 2, 8));
  }],
  ['LAYERS_UNEVEN', 'k', 'another number of tokens in a step', () => {
    const s = cache().sequence();
    s.append(0, zeros(1, 2, 8), zeros(1, 2, 8));
    s.append(1, zeros(2, 2, 8), zeros(2, 2, 8));
  }],
  ['OUT_OF_RANGE', 'layer', 'a layer that is not there', () => filled(1).layer(1)],
  ['INVALID_RANK', 'k', 'keys of rank 2', () => filled(1).append(0, zeros(2, 8) as never, zeros(1, 2, 8))],
  ['INVALID_SHAPE', 'k', 'keys of another head dim', () => filled(1).append(0, zeros(1, 2, 7), zeros(1, 2, 8))],
  ['INVALID_SHAPE', 'v', 'fewer values than keys', () => filled(1).append(0, zeros(2, 2, 8), zeros(1, 2, 8))],
  ['INVALID_DTYPE', 'v', 'values of another dtype', () =>
    filled(1).append(0, zeros(1, 2, 8), zeros(1, 2, 8).to('f16') as never)],
  ['INVALID_SHAPE', 'q', 'a batch of 2 over a sequence', () => attention(zeros(2, 1, 4, 8), filled(1).layer(0))],
  ['HEADS_NOT_DIVISIBLE', 'q', '3 heads over 2 KV heads', () => attention(zeros(1, 1, 3, 8), filled(1).layer(0))],
  ['INVALID_ARGUMENT', 'options.window', 'a window wider than the cache', () =>
    attention(zeros(1, 1, 4, 8), filled(5, { window: 4 }).layer(0), { window: 5 })],
  ['DISPOSED', 'sequence', 'a disposed sequence', () => {
    const s = filled(1);
    s.dispose();
    s.truncate(0);
  }],
];

let model: Model;
let folder: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'gqa-errors-'));
  model = await loadModel(embeddedModel, { contextLength: 20 });
});
afterAll(async () => {
  await model.dispose();
  rmSync(folder, { recursive: true });
});

const first = (prompt: unknown, options = {}) => model.generate(prompt as string, options).next();

/** A folder with this config.json over the embedded model's, and its weights. */
function folderOf(changes: Record<string, unknown>): string {
  const path = mkdtempSync(join(folder, 'model-'));
  const config = JSON.parse(readFileSync(join(embeddedModel, 'config.json'), 'utf8')) as object;
  writeFileSync(join(path, 'config.json'), JSON.stringify({ ...config, ...changes }));
  writeFileSync(join(path, 'model.safetensors'), readFileSync(join(embeddedModel, 'model.safetensors')));
  return path;
}

const MODEL: Row[] = [
  ['EMPTY_PROMPT', 'prompt', 'no ids', () => first([])],
  ['EMPTY_PROMPT', 'prompt', 'logits of no ids', () => model.logits([])],
  ['CONTEXT_EXCEEDED', 'prompt', 'more ids than the context', () => first(new Array(21).fill(5))],
  ['CONTEXT_EXCEEDED', 'prompt', 'a score of more ids than the context', () => model.score(new Array(21).fill(5))],
  ['OUT_OF_RANGE', 'prompt[1]', 'an id beyond the vocabulary', () => first([1, 2048])],
  ['INVALID_ARGUMENT', 'prompt', 'a prompt of no kind', () => first(12)],
  ['OUT_OF_RANGE', 'options.temperature', 'a negative temperature', () => first('a', { temperature: -1 })],
  ['NON_FINITE', 'options.temperature', 'temperature NaN', () => first('a', { temperature: NaN })],
  ['OUT_OF_RANGE', 'options.topP', 'topP above 1', () => first('a', { topP: 1.5 })],
  ['OUT_OF_RANGE', 'options.maxTokens', 'a negative maxTokens', () => first('a', { maxTokens: -1 })],
  ['INVALID_ARGUMENT', /options\.stop/, 'a stop that is no string', () => first('a', { stop: [3] })],
  ['INVALID_ARGUMENT', 'path', 'a path that is not there', () => loadModel(join(folder, 'nothing'))],
  ['INVALID_FILE', /./, 'a folder without a model', () => {
    mkdirSync(join(folder, 'empty'), { recursive: true });
    return loadModel(join(folder, 'empty'));
  }],
  ['INVALID_FILE', /./, 'a GGUF cut short', () => {
    writeFileSync(join(folder, 'short.gguf'), Buffer.from('GGUF\x03\x00\x00\x00\x01'));
    return loadModel(join(folder, 'short.gguf'));
  }],
  ['INVALID_FILE', /./, 'a config that the weights do not fit', () => loadModel(folderOf({ hidden_size: 128 }))],
  ['UNSUPPORTED_MODEL', /./, 'another architecture', () =>
    loadModel(folderOf({ model_type: 'mamba', architectures: ['MambaForCausalLM'] }))],
  ['NO_TOKENIZER', /./, 'text for a model without tokenizer files', async () => {
    const bare = await loadModel(folderOf({}));
    try {
      await bare.generate('text').next();
    } finally {
      await bare.dispose();
    }
  }],
];

const ROWS = [...TENSORS, ...ATTENTION, ...MERGE, ...CACHE, ...MODEL];

test.each(ROWS)('%s, %s: %s', (code, argument, _, action) => expectRefused(code, argument, action));

const UNAVAILABLE: [string, Record<string, string>][] = [
  ['an unknown backend', { GQA_BACKEND: 'gpu', GQA_ISA: '' }],
  ['an unknown instruction set', { GQA_BACKEND: '', GQA_ISA: 'mmx' }],
  ['an instruction set of the JavaScript backend', { GQA_BACKEND: 'js', GQA_ISA: 'avx2' }],
  ['threads of the JavaScript backend', { GQA_BACKEND: 'js', GQA_ISA: '', GQA_THREADS: '4' }],
  ['no threads', { GQA_BACKEND: 'native', GQA_ISA: '', GQA_THREADS: '0' }],
  ['threads that are no number', { GQA_BACKEND: 'native', GQA_ISA: '', GQA_THREADS: 'many' }],
];

test.each(UNAVAILABLE)('BACKEND_UNAVAILABLE: %s', (_, env) => {
  const program = `
    const attempt = (f) => { try { f(); return 'nothing'; } catch (error) { return error.code + ': ' + error.message; } };
    const t = () => gqa.Tensor.zeros([1, 1, 1, 1]);
    console.log([attempt(() => gqa.backend()), attempt(() => gqa.attention(t(), t(), t()))].join('\\n'));`;
  const { status, stdout } = runProgram(program, env);
  expect(status).toBe(0);
  const named = Object.entries(env).filter(([, value]) => value !== '');
  for (const line of stdout.trim().split('\n')) {
    expect(line).toMatch(/^BACKEND_UNAVAILABLE: /);
    expect(named.some(([name, value]) => line.includes(`${name}=${value}`))).toBe(true);
  }
});

test('a refused call leaves `out` and the cache as they were', async () => {
  const out = Tensor.from(new Array(64).fill(7), SHAPE);
  const values = kv();
  values.dispose();
  await expectRefused('DISPOSED', 'v', () => attention(q(), kv(), values, { out }));
  await expectRefused('OUT_OF_RANGE', 'options.window', () => attention(q(), kv(), kv(), { out, window: 0 }));
  await expectRefused('OUT_OF_RANGE', 'options.window', () => attentionAsync(q(), kv(), kv(), { out, window: 0 }));
  expect(out.data).toEqual(bits(new Array(64).fill(7)));

  const sequence = cache({ layers: 1 }).sequence();
  const ones = Tensor.from(new Array(16 * 7).fill(1), [7, 2, 8]);
  sequence.append(0, ones, ones);
  const nines = Tensor.from(new Array(16 * 2).fill(9), [2, 2, 8]);
  await expectRefused('CAPACITY_EXCEEDED', 'k', () => sequence.append(0, nines, nines));
  expect(sequence.length).toBe(7);
  expect(attention(zeros(1, 1, 2, 8), sequence.layer(0)).data).toEqual(bits(new Array(16).fill(1)));
});

test('every code is brought about by some row, and told in the documents', () => {
  const source = readFileSync(join(packageRoot, 'lib/core/errors.ts'), 'utf8');
  const codes = Array.from(source.matchAll(/^ {2}\| '([A-Z_]+)'/gm), (match) => match[1]);
  expect(codes.length).toBeGreaterThan(20);
  const elsewhere = ['BACKEND_UNAVAILABLE', 'BUSY', 'INTERNAL'];
  const brought = new Set<string>([...ROWS.map(([code]) => code), ...elsewhere]);
  expect(codes.filter((code) => !brought.has(code))).toEqual([]);
  const documents = readFileSync(join(packageRoot, 'README.md'), 'utf8');
  expect(codes.filter((code) => !documents.includes(code))).toEqual([]);
});
