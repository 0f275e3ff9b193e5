/** ModelShape from a Hugging Face config.json of any of these architectures. */
import { isObject, JsonFields, unsupported } from '../../model/json-fields';
import { layerCount, LAYER_KV_HEADS } from '../../model/config';
import type { ModelShape } from './shape';

/** What an architecture has that its config does not say. */
interface Traits {
  gated: boolean;
  layerNorm: boolean;
  norms: number;
  perHeadNorms: boolean;
  tied: boolean;
  learnedPositions: boolean;
  sinkLogits: boolean;
  /** Where the config leaves it out; null: hidden size / heads. */
  headDim: number | null;
  kvHeads: (config: JsonFields, heads: number) => number;
  bias: (config: JsonFields) => ModelShape['bias'];
  /** Which layers a window is for, where no list of layer types says so. */
  windowed: (config: JsonFields, layer: number) => boolean;
}

/** Names of one number in the configs of different architectures. */
const NAMES = {
  hiddenSize: ['hidden_size', 'n_embd'],
  layers: ['num_hidden_layers', 'num_layers', 'n_layer'],
  heads: ['num_attention_heads', 'n_head'],
  headDim: ['head_dim', 'kv_channels'],
  // Embeddings padded to a round number are what is stored.
  vocabSize: ['padded_vocab_size', 'vocab_size'],
  width: ['intermediate_size', 'ffn_hidden_size', 'n_inner'],
  contextLength: ['max_position_embeddings', 'seq_length', 'n_positions'],
  experts: ['num_local_experts', 'num_experts'],
  activeExperts: ['num_experts_per_tok', 'experts_per_token'],
} as const;

const NO_BIAS = { qkv: false, output: false, ffn: false, router: false };
const ALL_BIAS = { qkv: true, output: true, ffn: true, router: true };

/** Llama's; the others are told by what differs. */
const LLAMA: Traits = {
  gated: true,
  layerNorm: false,
  norms: 2,
  perHeadNorms: false,
  tied: false,
  learnedPositions: false,
  sinkLogits: false,
  headDim: null,
  kvHeads: (config, heads) => config.integer('num_key_value_heads', heads),
  bias: (config) => {
    const attention = config.flag('attention_bias', false);
    return { ...NO_BIAS, qkv: attention, output: attention, ffn: config.flag('mlp_bias', false) };
  },
  windowed: () => false,
};

const everyLayer = (): boolean => true;
const evenLayers = (_: JsonFields, layer: number): boolean => layer % 2 === 0;

const GEMMA: Traits = { ...LLAMA, norms: 4, tied: true, headDim: 256 };

/** Qwen leaves its first layers without a window, and all of them by default. */
function qwenWindowed(config: JsonFields, layer: number): boolean {
  return (
    config.flag('use_sliding_window', false) && layer >= config.integer('max_window_layers', 28, 0)
  );
}

const FALCON: Traits = {
  ...LLAMA,
  ...{ gated: false, layerNorm: true, tied: true, norms: 2 },
  kvHeads: (config, heads) => {
    if (config.flag('new_decoder_architecture', false))
      return config.integer('num_kv_heads', heads);
    // A list of KV heads in such a config counts for nothing: its one head serves all.
    return config.flag('multi_query', true) ? 1 : heads;
  },
  bias: (config) => (config.flag('bias', false) ? ALL_BIAS : NO_BIAS),
};

const BY_TYPE: Readonly<Record<string, Traits>> = {
  llama: LLAMA,
  mistral: { ...LLAMA, windowed: everyLayer },
  mixtral: { ...LLAMA, windowed: everyLayer },
  qwen2: { ...LLAMA, bias: () => ({ ...NO_BIAS, qkv: true }), windowed: qwenWindowed },
  qwen3: { ...LLAMA, perHeadNorms: true, headDim: 128, windowed: qwenWindowed },
  gemma2: { ...GEMMA, windowed: evenLayers },
  gemma3_text: {
    ...GEMMA,
    perHeadNorms: true,
    windowed: (config, layer) => (layer + 1) % config.integer('sliding_window_pattern', 6) !== 0,
  },
  phi3: { ...LLAMA, bias: () => NO_BIAS, windowed: everyLayer },
  falcon: FALCON,
  gpt_bigcode: {
    ...LLAMA,
    ...{ gated: false, layerNorm: true, tied: true, learnedPositions: true },
    kvHeads: (config, heads) => (config.flag('multi_query', true) ? 1 : heads),
    bias: () => ALL_BIAS,
  },
  chatglm: {
    ...LLAMA,
    kvHeads: (config, heads) =>
      config.flag('multi_query_attention', false) ? config.integer('multi_query_group_num') : heads,
    bias: (config) => {
      const all = config.flag('add_bias_linear', false);
      return all ? ALL_BIAS : { ...NO_BIAS, qkv: config.flag('add_qkv_bias', false) };
    },
  },
  gpt_oss: {
    ...LLAMA,
    ...{ headDim: 64, sinkLogits: true, windowed: evenLayers },
    bias: (config) => {
      const attention = config.flag('attention_bias', true);
      return { qkv: attention, output: attention, ffn: true, router: true };
    },
  },
};

export const ARCHITECTURES: readonly string[] = Object.keys(BY_TYPE);

export function traitsOf(architecture: string): Traits {
  if (Object.hasOwn(BY_TYPE, architecture)) return BY_TYPE[architecture];
  throw unsupported('model_type', ARCHITECTURES.join(', '), `'${architecture.slice(0, 80)}'`);
}

/** The first of a number's names that the config has. */
function nameIn(config: JsonFields, key: keyof typeof NAMES): string {
  return NAMES[key].find((name) => config.has(name)) ?? NAMES[key][0];
}

function read(config: JsonFields, key: keyof typeof NAMES, fallback?: number): number {
  return config.integer(nameIn(config, key), fallback);
}

function layerKvHeads(config: JsonFields, shared: number, layers: number): readonly number[] {
  const counts = config.raw(LAYER_KV_HEADS);
  if (counts === undefined) return new Array<number>(layers).fill(shared);
  if (!Array.isArray(counts) || counts.length !== layers) {
    throw config.wrong(LAYER_KV_HEADS, `a list of ${layers} numbers`, counts);
  }
  const named = new JsonFields(LAYER_KV_HEADS, { ...counts });
  return counts.map((_, layer) => named.integer(String(layer)));
}

/** `layer_types` says which layers have the window; older configs leave it to the architecture. */
function layerWindows(config: JsonFields, traits: Traits, layers: number): readonly number[] {
  const window = config.has('sliding_window') ? config.integer('sliding_window') : Infinity;
  const types = config.raw('layer_types');
  if (types !== undefined && (!Array.isArray(types) || types.length !== layers)) {
    throw config.wrong('layer_types', `a list of ${layers} names`, types);
  }
  const has = (layer: number): boolean =>
    types === undefined
      ? traits.windowed(config, layer)
      : (types as unknown[])[layer] === 'sliding_attention';
  return Array.from({ length: layers }, (_, layer) => (has(layer) ? window : Infinity));
}

function readFfn(config: JsonFields, traits: Traits, hiddenSize: number): ModelShape['ffn'] {
  const width = read(config, 'width', traits.gated ? undefined : 4 * hiddenSize);
  const count = read(config, 'experts', 1);
  if (count === 1) return { gated: traits.gated, width, experts: null };
  const active = read(config, 'activeExperts');
  if (active > count) {
    throw config.wrong(nameIn(config, 'activeExperts'), `at most ${count}`, active);
  }
  return { gated: traits.gated, width, experts: { count, active } };
}

function normsOf(config: JsonFields, traits: Traits, architecture: string): ModelShape['norms'] {
  // Falcon-7B's attention and FFN run side by side behind one norm.
  const parallel =
    architecture === 'falcon' &&
    config.flag('parallel_attn', true) &&
    !config.flag('new_decoder_architecture', false);
  return {
    perLayer: parallel ? 1 : traits.norms,
    bias: traits.layerNorm,
    perHead: traits.perHeadNorms,
  };
}

/** What every source of a shape must satisfy. */
export function checkedShape(shape: ModelShape): ModelShape {
  const wrong = shape.layerKvHeads.find((kvHeads) => shape.heads % kvHeads !== 0);
  if (wrong === undefined) return shape;
  throw unsupported('the number of KV heads', `a divisor of ${shape.heads}`, String(wrong));
}

/**
 * @param source what errors call the config
 * @throws GqaError INVALID_FILE (a field that is missing or makes no sense), UNSUPPORTED_MODEL (another architecture)
 */
export function shapeFromConfig(name: string, source: string, value: unknown): ModelShape {
  const whole = new JsonFields(source, value);
  // Models that see pictures too keep the decoder's config in a field.
  const config = isObject(whole.raw('text_config')) ? whole.object('text_config') : whole;
  const architecture = config.text('model_type') ?? '';
  const traits = traitsOf(architecture);
  const hiddenSize = read(config, 'hiddenSize');
  const layers = layerCount(config, nameIn(config, 'layers'));
  const heads = read(config, 'heads');
  const contextLength = read(config, 'contextLength', 2048);
  return checkedShape({
    ...{ name, architecture, hiddenSize, layers, heads, contextLength },
    vocabSize: read(config, 'vocabSize'),
    headDim: read(config, 'headDim', traits.headDim ?? hiddenSize / heads),
    layerKvHeads: layerKvHeads(config, traits.kvHeads(config, heads), layers),
    layerWindows: layerWindows(config, traits, layers),
    ffn: readFfn(config, traits, hiddenSize),
    tiedEmbeddings: config.flag('tie_word_embeddings', traits.tied),
    learnedPositions: traits.learnedPositions ? contextLength : 0,
    bias: traits.bias(config),
    norms: normsOf(config, traits, architecture),
    sinkLogits: traits.sinkLogits,
  });
}
