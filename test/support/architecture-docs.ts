/**
 * Writes docs/architectures.md from what architectures.test.ts measures:
 *   npm run docs:architectures
 */
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../lib/backend/package-root';
import { ARCHITECTURES } from '../../lib/model/arch';
import { figuresOn, type ArchitectureResult } from './architecture-figures';
import { goldenArchitectures, readArchitectureGolden } from './golden-architectures';

export interface ArchitectureRow {
  /** As lib/model/arch calls it. */
  name: string;
  models: string;
  features: string;
  goldens: readonly string[];
  /** GGUF's name of it; null where the format defines none. */
  gguf: string | null;
}

const ROPE = 'RoPE (plain, linear, Llama 3, YaRN)';

export const ARCHITECTURE_ROWS: readonly ArchitectureRow[] = [
  {
    name: 'llama',
    models: 'Llama 2, 3, 3.1, 3.2; SmolLM, SmolLM2; TinyLlama',
    features: `GQA, ${ROPE}, RMSNorm, SwiGLU, biases where stated`,
    goldens: ['llama2', 'llama3', 'llama3.2'],
    gguf: 'llama',
  },
  {
    name: 'mistral',
    models: 'Mistral 7B, with and without its window',
    features: 'as Llama, with a window in every layer',
    goldens: ['mistral'],
    gguf: 'llama',
  },
  {
    name: 'mixtral',
    models: 'Mixtral 8x7B, 8x22B',
    features: 'as Mistral, with a mixture of experts (top 2) for an MLP',
    goldens: ['mixtral'],
    gguf: 'llama',
  },
  {
    name: 'qwen2',
    models: 'Qwen 1.5, 2, 2.5; QwQ',
    features: 'as Llama, with biases of queries, keys and values; windows from a layer on',
    goldens: ['qwen2', 'qwen2-window'],
    gguf: 'qwen2',
  },
  {
    name: 'qwen3',
    models: 'Qwen 3 (dense)',
    features: 'as Llama, with norms of queries and keys; head dim apart from the width',
    goldens: ['qwen3'],
    gguf: 'qwen3',
  },
  {
    name: 'gemma2',
    models: 'Gemma 2',
    features:
      'softcaps of scores and logits, windows in every other layer, (1 + w) norms on both sides',
    goldens: ['gemma2'],
    gguf: 'gemma2',
  },
  {
    name: 'gemma3',
    models: 'Gemma 3 (text)',
    features:
      'windows in five of six layers, a RoPE for those and one for the others, norms of queries and keys',
    goldens: ['gemma3'],
    gguf: 'gemma3',
  },
  {
    name: 'phi3',
    models: 'Phi-3 and 3.5 mini, Phi-3 medium; Phi-4, Phi-4-mini',
    features: 'fused projections, a part of each head turned, LongRoPE, a window',
    goldens: ['phi3', 'phi3-longrope'],
    gguf: 'phi3',
  },
  {
    name: 'falcon',
    models: 'Falcon 7B, 40B, 180B; Falcon 2 11B; Falcon-RW',
    features: 'MQA and GQA, attention and MLP beside each other, LayerNorm; ALiBi and biases (RW)',
    goldens: ['falcon-7b', 'falcon-40b', 'falcon-rw'],
    gguf: 'falcon',
  },
  {
    name: 'gpt_bigcode',
    models: 'StarCoder, StarCoderBase',
    features: 'MQA, learned positions, LayerNorm, GELU',
    goldens: ['gpt_bigcode'],
    gguf: 'starcoder',
  },
  {
    name: 'gpt_neox',
    models: 'GPT-NeoX 20B, Pythia, Dolly 2, RedPajama-INCITE',
    features: 'MHA, a part of each head turned, attention and MLP beside or behind each other',
    goldens: ['gpt_neox', 'gpt_neox-sequential'],
    gguf: 'gptneox',
  },
  {
    name: 'glm',
    models: 'GLM-4-9B (-hf)',
    features: 'GQA, half of each head turned in neighbouring pairs, biases, fused gate and up',
    goldens: ['glm'],
    gguf: 'chatglm',
  },
  {
    name: 'glm4',
    models: 'GLM-4-9B-0414, GLM-4-32B-0414, GLM-Z1',
    features: 'as GLM, with norms behind attention and MLP too',
    goldens: ['glm4'],
    gguf: 'glm4',
  },
  {
    name: 'chatglm',
    models: 'ChatGLM2-6B, ChatGLM3-6B, GLM-4-9B in its first form',
    features: 'as GLM, under names of its own',
    goldens: ['chatglm2'],
    gguf: 'chatglm',
  },
  {
    name: 'gpt_oss',
    models: 'gpt-oss-20b, gpt-oss-120b',
    features:
      'sink logits, windows in every other layer, YaRN, a mixture of experts with biases; bf16 or MXFP4',
    goldens: ['gpt_oss', 'gpt_oss-mxfp4'],
    gguf: 'gpt-oss',
  },
];

/** The largest of a golden's errors; throws where it could not be computed. */
function worst(name: string, result: ArchitectureResult): number {
  if ('code' in result) throw new Error(`${name}: ${result.code}: ${result.message}`);
  const { greedy, ...errors } = result;
  if (greedy.join() !== readArchitectureGolden(name).greedy.join()) {
    throw new Error(`${name}: other greedy tokens`);
  }
  return Math.max(...Object.values(errors));
}

function ggufPath(name: string): string | null {
  const path = join(packageRoot(), 'test', 'golden', 'gguf', `${name}.gguf`);
  return existsSync(path) ? path : null;
}

function table(): string {
  const names = goldenArchitectures();
  const native = figuresOn('native', names);
  const js = figuresOn('js', names);
  const files = names.filter((name) => ggufPath(name) !== null);
  const gguf = figuresOn(
    'native',
    files.map((name) => `${name}=${ggufPath(name)}`),
  );
  const error = (results: Record<string, ArchitectureResult>, goldens: readonly string[]) => {
    const found = goldens.filter((name) => name in results);
    if (found.length === 0) return '';
    return Math.max(...found.map((name) => worst(name, results[name]))).toExponential(1);
  };
  const head = [
    'architecture',
    '`model_type`',
    'models',
    'what is its own',
    'checkpoints',
    'native',
    'JS',
    'GGUF',
  ];
  const rows = ARCHITECTURE_ROWS.map((row) => {
    const types = ARCHITECTURES.find(({ name }) => name === row.name)!.modelTypes;
    const code = (texts: readonly string[]) => texts.map((text) => `\`${text}\``).join(', ');
    const ggufError = error(gguf, row.goldens);
    return [
      `\`${row.name}\``,
      code(types),
      row.models,
      row.features,
      code(row.goldens),
      error(native, row.goldens),
      error(js, row.goldens),
      row.gguf === null ? 'none' : `\`${row.gguf}\`${ggufError === '' ? '' : `, ${ggufError}`}`,
    ];
  });
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}

function text(): string {
  const { transformers, torch } = readArchitectureGolden('llama3');
  return `# Architectures

<!-- Written by npm run docs:architectures (test/support/architecture-docs.ts); do not edit. -->

Each is a file of lib/model/arch, made of the parts of lib/nn, and loads from a Hugging Face folder (one safetensors file, or shards with their index) or a GGUF file. \`model_type\` of config.json, or GGUF's \`general.architecture\`, decides which.

${table()}

The figures are errors of logits against transformers ${transformers} (torch ${torch}, float32): max |difference| / max(1, largest |logit|) over every position of a prompt of 40 tokens, the worst of the whole prompt at once, in chunks of seven, token by token, and beside two other sequences in each step. The checkpoints are tiny, random and of odd sizes (groups of 3, 5 and 7 heads, head dims that are no powers of two, windows of 16 tokens), in bf16, f16 or f32, under test/golden/arch; \`scripts/make-golden.py\` makes them. The 16 greedy tokens that follow are the same for all. \`test/model/architectures.test.ts\` demands it with at most 2e-4, natively and in JavaScript; \`architectures-gguf.test.ts\` of the GGUF files (\`scripts/make-golden-gguf.py\`), whose column has their error.

- Config files of model repositories and those that transformers writes today are told alike; what an architecture's file does not compute (another activation, another kind of RoPE) is refused with \`UNSUPPORTED_MODEL\`, which names the field.
- ChatGLM2 is no class of transformers: its checkpoint is that of a \`glm\` under ChatGLM2's names.
- transformers' eager attention adds Falcon-RW's ALiBi twice; its golden is of \`sdpa\`, which adds it once.
- LongRoPE has divisors for short and for long contexts. transformers changes from one to the other as a text grows; here the long ones are taken unless the model is loaded for no more than its original context (\`contextLength\`), so that a cache holds keys of one kind.
- gpt-oss is given out in MXFP4. Its numbers are told as blocks of Q8_0, which have the same ones at twice the bytes, and multiplied as those.
- \`positions: 'cache'\` is for models that turn all keys by one RoPE.
`;
}

if (require.main === module) {
  writeFileSync(join(packageRoot(), 'docs', 'architectures.md'), text());
}
