/** Popular figures about KV caches and groups that are wrong, each beside the computation that shows it. */
import { expectedError } from '../../core/errors';
import { formatBytes, formatCount, grouped } from '../numbers';
import { divisorsOf } from './groups';
import { kvBytes, type KvDType } from './kv-bytes';
import { attentionParameters, buyBack, countParameters, ffnParameters } from './parameters';
import { preset, PRESETS, type PresetName } from './presets';
import { mostKvHeads, withKvHeads, type ModelShape } from './shape';

export interface Explanation {
  topic: string;
  /** What is told. */
  claim: string;
  verdict: string;
  /** One line each, from the formula to the figure. */
  steps: readonly string[];
}

const F16: KvDType = { k: 'f16', v: 'f16' };
const FORMULA =
  'Bytes of a KV cache = 2 (K and V) x layers x KV heads x head dim x bytes a number x tokens x sequences.';

const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(3)} GB`;

function bytesOf(shape: ModelShape, tokens: number): number {
  return kvBytes(shape, F16, { context: tokens, batch: 1, sharedPrefix: 0 }).textbookSequenceBytes;
}

/** 2 x 80 layers x 8 KV heads x 128 x 2 bytes = 327,680 bytes a token. */
export function perTokenStep(shape: ModelShape, kvHeads = mostKvHeads(shape)): string {
  const bytes = kvBytes(withKvHeads(shape, kvHeads), F16, {
    ...{ context: 1, batch: 1, sharedPrefix: 0 },
  }).textbookBytesPerToken;
  const { layers, headDim } = shape;
  return (
    `2 x ${layers} layers x ${kvHeads} KV ${kvHeads === 1 ? 'head' : 'heads'} x ${headDim} x 2 bytes (f16) = ` +
    `${grouped(bytes)} bytes a token (${formatBytes(bytes)}).`
  );
}

function heads70b(): Explanation {
  const shape = preset('llama-2-70b');
  const tokens = 2048;
  const claimed = 42e9;
  const perToken = bytesOf(shape, 1);
  const full = bytesOf(withKvHeads(shape, shape.heads), tokens);
  const long = 131_072;
  return {
    topic: '70b',
    claim: 'LLaMA-2-70B at 2,048 tokens needs 42 GB of KV cache per GPU.',
    verdict: `Wrong: it is ${gigabytes(bytesOf(shape, tokens))}, on all GPUs together.`,
    steps: [
      FORMULA,
      `LLaMA-2-70B: ${perTokenStep(shape)}`,
      `x ${grouped(tokens)} tokens = ${grouped(bytesOf(shape, tokens))} bytes = ${gigabytes(bytesOf(shape, tokens))}.`,
      `With a KV head for each of its ${shape.heads} query heads it would be ${gigabytes(full)}: still not 42.`,
      `42 GB / ${grouped(perToken)} bytes = ${grouped(Math.floor(claimed / perToken))} tokens: the cache of one sequence of ${grouped(long)} tokens is ${formatBytes(bytesOf(shape, long))}.`,
      `As GPUs that share a model each hold some of the KV heads, 8 GPUs would hold ${gigabytes(bytesOf(shape, tokens) / 8)} each.`,
    ],
  };
}

function heads7b(): Explanation {
  const shape = preset('llama-2-7b');
  const tokens = 2048;
  const [mha, gqa] = [shape.heads, 8].map((kvHeads) =>
    bytesOf(withKvHeads(shape, kvHeads), tokens),
  );
  return {
    topic: '7b',
    claim: 'A 7B model at 2,048 tokens needs 26.4 GB with multi-head attention, 6.8 GB with GQA.',
    verdict: `Wrong for a sequence: it is ${gigabytes(mha)} and ${gigabytes(gqa)}.`,
    steps: [
      FORMULA,
      `LLaMA-2-7B: ${perTokenStep(shape)}`,
      `x ${grouped(tokens)} tokens = ${grouped(mha)} bytes = ${gigabytes(mha)}.`,
      `With 8 KV heads: ${perTokenStep(shape, 8)}`,
      `x ${grouped(tokens)} tokens = ${grouped(gqa)} bytes = ${gigabytes(gqa)}: ${mha / gqa} times less, as KV heads are.`,
      `26.4 / ${(mha / 1e9).toFixed(3)} = ${(26.4e9 / mha).toFixed(1)} and 6.8 / ${(gqa / 1e9).toFixed(3)} = ${(6.8e9 / gqa).toFixed(1)}: the figures fit a batch of about 25 sequences, which they do not tell.`,
    ],
  };
}

function mixtralExperts(): Explanation {
  const shape = preset('mixtral-8x7b');
  const { query, key, value, output } = attentionParameters(shape, mostKvHeads(shape));
  const { count, active } = shape.ffn.experts!;
  const counts = countParameters(shape);
  const [own, mistral] = [shape, preset('mistral-7b')].map((model) => bytesOf(model, 1));
  return {
    topic: 'mixtral',
    claim: "Each of Mixtral's experts has GQA groups of its own.",
    verdict:
      'Wrong: experts are feed-forward networks; a layer has one attention, which all tokens go through.',
    steps: [
      `A layer's attention: ${shape.heads} query heads, ${mostKvHeads(shape)} KV heads of ${shape.headDim}: Q ${grouped(query)} + K ${grouped(key)} + V ${grouped(value)} + O ${grouped(output)} parameters, once.`,
      `Its ${count} experts: ${count} x 3 x ${shape.hiddenSize} x ${shape.ffn.width} = ${grouped(count * ffnParameters(shape))} parameters, without a key or a value among them.`,
      `Keys and values: ${perTokenStep(shape)} Mistral-7B, which has no experts, has as many: ${grouped(mistral)}.`,
      `Groups per expert would make them ${count} times as many: ${grouped(count * own)}.`,
      `Of ${formatCount(counts.total)} parameters a token goes through ${formatCount(counts.active)}: ${active} experts of ${count}.`,
    ],
  };
}

function entropyRule(): Explanation {
  const rule = 3.5;
  const contexts = [64, 384, 4096, 131_072];
  const shares = contexts.map((n) => `${(rule / Math.log(n)).toFixed(2)} of ln ${grouped(n)}`);
  const keys = Math.floor(Math.exp(rule));
  return {
    topic: 'entropy',
    claim: 'A head whose attention entropy is below 3.5 can share its keys and values safely.',
    verdict:
      'No basis: the unit is missing, the number depends on the context, and it is no measure of what is shared.',
    steps: [
      'Entropy H = -sum p ln p over the keys that a query sees; n equal weights give ln n.',
      `3.5 nats are ${Math.exp(rule).toFixed(1)} keys of equal weight, 3.5 bits ${(2 ** rule).toFixed(1)}.`,
      `Attention that is spread evenly over all keys, as unfocused as can be, has less than 3.5 nats as long as it sees ${keys} keys or fewer.`,
      `3.5 nats are ${shares.join(', ')}: the same number is much and little. H / ln n can be compared.`,
      'Entropy says how many keys a head looks at. Whether two heads can share keys and values depends on how alike those are: on aligned similarity, and on the error of the output that is measured when they do.',
    ],
  };
}

function groupFormula(): Explanation {
  const optimum = (heads: number, tokens: number): number =>
    Math.ceil(heads / 4) * Math.sqrt(tokens / 512);
  const lengths = [512, 2048, 8192, 32_768];
  const values = lengths.map((length) => `${grouped(length)}: ${optimum(32, length)}`);
  const seventy = optimum(64, 4096);
  const used = PRESETS.map((name) => preset(name));
  const eight = used.filter((shape) => mostKvHeads(shape) === 8).map(({ name }) => name);
  return {
    topic: 'g-opt',
    claim: 'The optimal number of groups is G = ceil(h / 4) x sqrt(L / 512).',
    verdict:
      'Wrong: it grows with the context, where a cache hurts most, and beyond the heads that there are.',
    steps: [
      `h = 32 heads, by context L: ${values.join('; ')}.`,
      `At ${grouped(8192)} tokens that is a KV head for each query head, no groups at all; at ${grouped(32_768)} more KV heads than query heads.`,
      `h = 64, L = 4,096: ${seventy.toFixed(2)}, no divisor of 64 (${divisorsOf(64).join(', ')}).`,
      'The number of KV heads is fixed when a model is trained; its context is not.',
      `Models that are in use have 8 at any length: ${eight.join(', ')}.`,
    ],
  };
}

function falconWidth(): Explanation {
  const falcon = preset('falcon-7b');
  const d = 4096;
  const { headDim } = falcon;
  const heads = d / headDim;
  const ffn = { gated: false, width: 4 * d, experts: null };
  const { hiddenSize, heads: needed } = buyBack({ ...falcon, hiddenSize: d, heads, ffn }, 1);
  const layer = (x: number): number => 10 * x * x + 2 * headDim * x;
  return {
    topic: 'falcon',
    claim: 'Falcon-7B has the odd hidden size 4,544 and 71 heads.',
    verdict: `That is what its one KV head buys back: ${needed} heads of ${headDim} are the fewest that make up for it.`,
    steps: [
      `Multi-head attention at hidden size d = ${grouped(d)}: Q, K, V, O 4 d^2 and an FFN of two projections, four times as wide, 8 d^2: 12 d^2 = ${grouped(12 * d * d)} parameters a layer.`,
      `With one KV head of ${headDim}: Q, O 2 d^2, K, V 2 x ${headDim} d, FFN 8 d^2. So 10 x^2 + ${2 * headDim} x = ${grouped(12 * d * d)}, and x = ${hiddenSize.toFixed(1)}.`,
      `${needed - 1} heads: x = ${grouped((needed - 1) * headDim)}, ${grouped(layer((needed - 1) * headDim))} parameters; ${needed} heads: x = ${grouped(needed * headDim)}, ${grouped(layer(needed * headDim))}.`,
    ],
  };
}

/** A gated FFN widened by what fewer KV heads save. */
function widthStep(name: PresetName, before: number): string[] {
  const shape = preset(name);
  const kvHeads = mostKvHeads(shape);
  const narrow = { ...shape, ffn: { ...shape.ffn, width: before } };
  const { savedPerLayer, ffnWidth } = buyBack(narrow, kvHeads);
  const { heads, headDim, hiddenSize, ffn } = shape;
  return [
    `${name}: ${kvHeads} KV heads instead of ${heads} save 2 x ${hiddenSize} x ${heads - kvHeads} x ${headDim} = ${grouped(savedPerLayer)} parameters a layer.`,
    `A gated FFN takes 3 x ${hiddenSize} = ${grouped(3 * hiddenSize)} for each unit of width: they buy ${grouped(Math.round(ffnWidth) - before)}, from ${grouped(before)} to ${grouped(Math.round(ffnWidth))}. The model has ${grouped(ffn.width)}.`,
  ];
}

function ffnWidths(): Explanation {
  return {
    topic: 'ffn',
    claim:
      'ChatGLM2-6B and LLaMA-2-70B have wider FFNs than multi-head models of their hidden sizes (11,008 and 22,016).',
    verdict: 'That is what their few KV heads buy back, and somewhat more.',
    steps: [...widthStep('chatglm2-6b', 11_008), ...widthStep('llama-2-70b', 22_016)],
  };
}

const BY_TOPIC: Readonly<Record<string, () => Explanation>> = {
  '70b': heads70b,
  '7b': heads7b,
  mixtral: mixtralExperts,
  entropy: entropyRule,
  'g-opt': groupFormula,
  falcon: falconWidth,
  ffn: ffnWidths,
};

export const TOPICS: readonly string[] = Object.keys(BY_TOPIC);

/** @throws GqaError INVALID_ARGUMENT where there is no such topic */
export function explain(topic: string): Explanation {
  const known = topic.toLowerCase();
  if (Object.hasOwn(BY_TOPIC, known)) return BY_TOPIC[known]();
  const expected = `one of ${TOPICS.join(', ')}`;
  throw expectedError('INVALID_ARGUMENT', 'topic', expected, `'${topic.slice(0, 80)}'`);
}
