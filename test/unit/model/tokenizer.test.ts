import fc from 'fast-check';
import { mkdirSync, readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { GqaError } from '../../../lib/core/errors';
import type { GgufFile, GgufValue } from '../../../lib/format/gguf';
import { openCheckpoint } from '../../../lib/model/checkpoint';
import { Detokenizer } from '../../../lib/model/detokenizer';
import { createTokenizer, missingTokenizer, type Tokenizer } from '../../../lib/model/tokenizer';
import { readFolderTokenizer } from '../../../lib/model/tokenizer-folder';
import { readGgufTokenizer } from '../../../lib/model/tokenizer-gguf';
import { ARCHITECTURE_GOLDENS } from '../../support/golden-architectures';
import { embeddedModel } from '../../support/package';
import { temporaryFolder, write } from '../format/build-files';

const path = temporaryFolder();

interface TokenizerJson {
  model: { vocab: Record<string, number>; merges: (string | [string, string])[] };
}
const STORIES = JSON.parse(
  readFileSync(join(embeddedModel, 'tokenizer.json'), 'utf8'),
) as TokenizerJson;

let folders = 0;
/** A tokenizer of the embedded model's files, changed. */
function fromFolder(
  config: object,
  json: object = {},
  files: Record<string, string> = {},
): Tokenizer {
  const folder = path(`folder-${folders++}`);
  mkdirSync(folder);
  write(join(folder, 'tokenizer.json'), Buffer.from(JSON.stringify({ ...STORIES, ...json })));
  const names = { bos_token: '<|begin|>', eos_token: '<|end|>' };
  const tokenizerConfig = JSON.stringify({ ...names, ...config });
  write(join(folder, 'tokenizer_config.json'), Buffer.from(tokenizerConfig));
  for (const [name, text] of Object.entries(files)) write(join(folder, name), Buffer.from(text));
  return createTokenizer(readFolderTokenizer(folder)!);
}

/** The embedded vocabulary as GGUF metadata. */
function ggufMetadata(changes: Record<string, GgufValue>): Map<string, GgufValue> {
  const tokens: string[] = [];
  for (const [token, id] of Object.entries(STORIES.model.vocab)) tokens[id] = token;
  return new Map<string, GgufValue>([
    ['tokenizer.ggml.model', 'gpt2'],
    ['tokenizer.ggml.pre', 'gpt-2'],
    ['tokenizer.ggml.tokens', tokens],
    ['tokenizer.ggml.token_type', tokens.map((_, id) => (id < 2 ? 3 : 1))],
    [
      'tokenizer.ggml.merges',
      STORIES.model.merges.map((m) => (typeof m === 'string' ? m : m.join(' '))),
    ],
    ['tokenizer.ggml.bos_token_id', 1],
    ['tokenizer.ggml.eos_token_id', 0],
    ...Object.entries(changes),
  ]);
}

function fromGguf(metadata: Map<string, GgufValue>): Tokenizer {
  return createTokenizer(readGgufTokenizer({ path: 'x.gguf', metadata } as unknown as GgufFile)!);
}

/** No half of a surrogate pair. */
function wellFormed(text: string): boolean {
  return Buffer.from(text).toString() === text;
}

function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof GqaError) return error.code;
    throw error;
  }
  return 'none';
}

const BOS_TEMPLATE = {
  post_processor: {
    type: 'TemplateProcessing',
    single: [
      { SpecialToken: { id: '<|begin|>', type_id: 0 } },
      { Sequence: { id: 'A', type_id: 0 } },
    ],
    pair: [],
    special_tokens: { '<|begin|>': { id: '<|begin|>', ids: [1], tokens: ['<|begin|>'] } },
  },
};

describe('BOS', () => {
  const ids = [507];
  it.each<[string, object, object, number[]]>([
    ['add_bos_token', { add_bos_token: true }, {}, [1, ...ids]],
    ['the post-processor', {}, BOS_TEMPLATE, [1, ...ids]],
    ['both, once', { add_bos_token: true }, BOS_TEMPLATE, [1, ...ids]],
    ['neither', {}, {}, ids],
    ['add_bos_token false over the post-processor', { add_bos_token: false }, BOS_TEMPLATE, ids],
  ])('by %s', (_, config, json, expected) => {
    const tokenizer = fromFolder(config, json);
    expect(tokenizer.encode('Once')).toEqual(expected);
    expect(tokenizer.encode('Once', { bos: false })).toEqual(ids);
    expect(tokenizer.encode('')).toEqual(expected.slice(0, -1));
    // Spelled out in the text, it is not put before it again.
    expect(tokenizer.encode('<|begin|>Once')).toEqual([1, ...ids]);
  });

  it('by the GGUF key', () => {
    const bos = (value?: boolean) =>
      fromGguf(ggufMetadata(value === undefined ? {} : { 'tokenizer.ggml.add_bos_token': value }));
    expect(bos(true).encode('Once')).toEqual([1, ...ids]);
    expect(bos(false).encode('Once')).toEqual(ids);
    expect(bos().encode('Once')).toEqual(ids);
    const llama = fromGguf(ggufMetadata({ 'tokenizer.ggml.pre': 'llama-bpe' }));
    expect(llama.encode('Once')).toEqual([1, ...ids]);
  });
});

describe('encode and decode', () => {
  const tokenizer = fromFolder({ add_bos_token: true });
  const gguf = fromGguf(ggufMetadata({ 'tokenizer.ggml.add_bos_token': true }));
  const anyText = fc.string({
    unit: fc.oneof(
      fc.constantFrom('a', ' ', '\n', '1', '²', '٣', '.', "'s", '\u0085', '\ufeff'),
      fc.string({ unit: 'grapheme', minLength: 1, maxLength: 1 }),
    ),
    maxLength: 20,
  });

  it('turn any text into ids and back', () => {
    fc.assert(
      fc.property(anyText, (text) => {
        fc.pre(!text.includes('<|') && wellFormed(text));
        const ids = tokenizer.encode(text);
        expect(ids[0]).toBe(1);
        expect(tokenizer.decode(ids)).toBe(text);
        expect(gguf.encode(text)).toEqual(ids);
      }),
      { numRuns: 300 },
    );
  });

  it('know special tokens', () => {
    expect(tokenizer.encode('Once<|end|>Once')).toEqual([1, 507, 0, 507]);
    expect(tokenizer.decode([1, 507, 0])).toBe('Once');
    expect(tokenizer.decode([1, 507, 0], { skipSpecialTokens: false })).toBe(
      '<|begin|>Once<|end|>',
    );
    expect(tokenizer.specialTokenId('<|end|>')).toBe(0);
    expect(tokenizer.specialTokenId('Once')).toBeUndefined();
    expect([tokenizer.bosTokenId, tokenizer.eosTokenId]).toEqual([1, 0]);
  });

  it('leave punctuation where it was', () => {
    const text = "he 's here , is n't he ? Yes .";
    expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
  });

  it('take typed arrays, no ids, and ids beyond the vocabulary', () => {
    expect(tokenizer.decode(Int32Array.of(1, 507))).toBe('Once');
    expect(tokenizer.decode([])).toBe('');
    expect(tokenizer.decode([507, 2 ** 31])).toBe('Once');
  });

  it('refuse what is no text and no id', () => {
    expect(codeOf(() => tokenizer.encode(7 as unknown as string))).toBe('INVALID_ARGUMENT');
    expect(codeOf(() => tokenizer.decode([1.5]))).toBe('INVALID_ARGUMENT');
    expect(codeOf(() => tokenizer.decode([-1]))).toBe('OUT_OF_RANGE');
  });

  it('refuse everything without tokenizer files', () => {
    const none = missingTokenizer('x');
    expect(codeOf(() => none.encode('a'))).toBe('NO_TOKENIZER');
    expect(codeOf(() => none.decode([1]))).toBe('NO_TOKENIZER');
    expect(codeOf(() => none.applyChatTemplate([]))).toBe('NO_TOKENIZER');
  });
});

test('a tokenizer.model alone is refused by name', () => {
  const folder = path('sentencepiece-only');
  const golden = join(ARCHITECTURE_GOLDENS, 'llama2');
  mkdirSync(folder);
  for (const file of ['config.json', 'model.safetensors']) {
    symlinkSync(join(golden, file), join(folder, file));
  }
  const encode = () => {
    const { tokenizer, weights } = openCheckpoint(folder);
    weights.close();
    tokenizer().encode('a');
  };
  expect(codeOf(encode)).toBe('NO_TOKENIZER');
  expect(encode).not.toThrow(/tokenizer\.model/);
  write(join(folder, 'tokenizer.model'), Buffer.from('x'));
  expect(codeOf(encode)).toBe('NO_TOKENIZER');
  expect(encode).toThrow(/tokenizer\.model/);
});

describe('pre-tokenizers of GGUF', () => {
  const pieces = (pre: string, text: string) => {
    const tokenizer = fromGguf(
      ggufMetadata({ 'tokenizer.ggml.pre': pre, 'tokenizer.ggml.merges': [] }),
    );
    return tokenizer.encode(text, { bos: false }).length;
  };

  it('are known by name or refused', () => {
    // Without merges every byte is a token: all pre-tokenizers agree.
    for (const pre of ['gpt-2', 'smollm', 'llama-bpe', 'qwen2'])
      expect(pieces(pre, 'a 12')).toBe(4);
    expect(codeOf(() => pieces('nobody', 'a'))).toBe('UNSUPPORTED_MODEL');
  });

  it.each<[string, string[]]>([
    ['gpt-2', ['12345']],
    ['smollm', ['1', '2', '3', '4', '5']],
    ['llama-bpe', ['123', '45']],
    ['qwen2', ['1', '2', '3', '4', '5']],
  ])('%s cuts digits its way', (pre, expected) => {
    const digits = '123456789'.split('');
    const tokens = [...digits, '12', '123', '1234', '12345', '45'];
    const merges = ['1 2', '12 3', '4 5', '123 45'];
    const tokenizer = fromGguf(
      new Map<string, GgufValue>([
        ['tokenizer.ggml.model', 'gpt2'],
        ['tokenizer.ggml.pre', pre],
        ['tokenizer.ggml.tokens', tokens],
        ['tokenizer.ggml.merges', merges],
        ['tokenizer.ggml.add_bos_token', false],
      ]),
    );
    expect(tokenizer.encode('12345').map((id) => tokens[id])).toEqual(expected);
  });
});

describe('SentencePiece vocabularies of GGUF', () => {
  const SPACE = '\u2581';
  const words = [
    '▁',
    'a',
    'b',
    'c',
    '▁a',
    'ab',
    'bc',
    'abc',
    '▁ab',
    'ca',
    'cab',
    'aa',
    'aaa',
    'bb',
    '▁▁',
  ];
  const tokens = [
    '<unk>',
    '<s>',
    '</s>',
    ...Array.from(
      { length: 256 },
      (_, b) => `<0x${b.toString(16).toUpperCase().padStart(2, '0')}>`,
    ),
    ...words,
  ];
  const type = (token: string, id: number) =>
    id === 0 ? 2 : id < 3 ? 3 : token.startsWith('<0x') ? 6 : 1;

  function metadata(scores: readonly number[], changes: Record<string, GgufValue> = {}) {
    return new Map<string, GgufValue>([
      ['tokenizer.ggml.model', 'llama'],
      ['tokenizer.ggml.tokens', tokens],
      ['tokenizer.ggml.token_type', tokens.map(type)],
      [
        'tokenizer.ggml.scores',
        tokens.map((_, id) => scores[id - tokens.length + words.length] ?? 0),
      ],
      ['tokenizer.ggml.bos_token_id', 1],
      ['tokenizer.ggml.eos_token_id', 2],
      ['tokenizer.ggml.unknown_token_id', 0],
      ...Object.entries(changes),
    ]);
  }

  /** SentencePiece's own procedure: join the best-scored neighbours, the leftmost of equals, until none is a token. */
  function reference(text: string, scores: readonly number[]): string[] {
    const symbols = [...(SPACE + text).replaceAll(' ', SPACE)];
    for (;;) {
      let best = -1;
      let bestScore = -Infinity;
      for (let i = 0; i + 1 < symbols.length; i++) {
        const id = words.indexOf(symbols[i] + symbols[i + 1]);
        if (id >= 0 && scores[id] > bestScore) [best, bestScore] = [i, scores[id]];
      }
      if (best < 0) break;
      symbols.splice(best, 2, symbols[best] + symbols[best + 1]);
    }
    return symbols.flatMap((symbol) =>
      words.includes(symbol)
        ? symbol
        : Array.from(
            Buffer.from(symbol),
            (b) => `<0x${b.toString(16).toUpperCase().padStart(2, '0')}>`,
          ),
    );
  }

  it('are cut as SentencePiece cuts them, for any scores', () => {
    const text = fc.string({
      unit: fc.constantFrom('a', 'b', 'c', ' ', 'é', '😀'),
      minLength: 1,
      maxLength: 14,
    });
    const order = fc.shuffledSubarray(
      words.map((_, i) => i),
      { minLength: words.length },
    );
    fc.assert(
      fc.property(order, fc.array(text, { minLength: 1, maxLength: 8 }), (ranks, texts) => {
        const scores = ranks.map((rank) => -rank);
        const tokenizer = fromGguf(metadata(scores));
        for (const sample of texts) {
          const cut = tokenizer.encode(sample, { bos: false }).map((id) => tokens[id]);
          // Where the cuts of one token compete with each other the two may part: see mergesByScore.
          if (/aaa/.test(sample)) continue;
          expect(cut).toEqual(reference(sample, scores));
        }
      }),
      { numRuns: 60 },
    );
  });

  it('decode back, bytes and spaces included', () => {
    const tokenizer = fromGguf(metadata(words.map((_, i) => -i)));
    expect(tokenizer.encode('ab')[0]).toBe(1);
    for (const text of ['ab c', 'é😀', '  ab', 'a\nb']) {
      expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
    }
    expect(tokenizer.encode('a</s>b', { bos: false })).toContain(2);
  });

  it('put no space before a text where the file says so', () => {
    const plain = fromGguf(
      metadata(
        words.map((_, i) => -i),
        { 'tokenizer.ggml.add_space_prefix': false },
      ),
    );
    expect(plain.encode('c', { bos: false }).map((id) => tokens[id])).toEqual(['c']);
    expect(plain.decode(plain.encode(' c'))).toBe(' c');
  });

  it('continue a prompt with the space between words', () => {
    const tokenizer = fromGguf(metadata(words.map((_, i) => -i)));
    const prompt = tokenizer.encode('ab');
    const detokenizer = new Detokenizer(tokenizer, prompt);
    const next = tokens.indexOf('▁a');
    expect(detokenizer.push(next) + detokenizer.push(tokens.indexOf('bc'))).toBe(' abc');
  });
});

describe('damaged vocabularies', () => {
  it.each<[string, Record<string, GgufValue>, string]>([
    ['no tokens', { 'tokenizer.ggml.tokens': 'none' }, 'INVALID_FILE'],
    ['numbers for tokens', { 'tokenizer.ggml.tokens': [1, 2] }, 'INVALID_FILE'],
    ['fewer types than tokens', { 'tokenizer.ggml.token_type': [1] }, 'INVALID_FILE'],
    ['text for merges', { 'tokenizer.ggml.merges': 'a b' }, 'INVALID_FILE'],
    ['text for BOS', { 'tokenizer.ggml.bos_token_id': 'x' }, 'INVALID_FILE'],
    ['another kind of vocabulary', { 'tokenizer.ggml.model': 'rwkv' }, 'UNSUPPORTED_MODEL'],
    ['SentencePiece without scores', { 'tokenizer.ggml.model': 'llama' }, 'INVALID_FILE'],
  ])('GGUF: %s', (_, changes, code) => {
    expect(codeOf(() => fromGguf(ggufMetadata(changes)))).toBe(code);
  });

  it('GGUF: none', () => {
    const metadata = ggufMetadata({ 'tokenizer.ggml.model': 'none' });
    expect(readGgufTokenizer({ path: 'x', metadata } as unknown as GgufFile)).toBeNull();
    expect(readGgufTokenizer({ path: 'x', metadata: new Map() } as unknown as GgufFile)).toBeNull();
  });

  it.each<[string, object]>([
    ['no model', { model: null }],
    ['an unknown model', { model: { type: 'Magic' } }],
    ['a number for the vocabulary', { model: { type: 'BPE', vocab: 7, merges: [] } }],
    ['text for an id', { model: { type: 'BPE', vocab: { a: 'x' }, merges: [] } }],
    ['merges that are numbers', { model: { type: 'BPE', vocab: {}, merges: [1] } }],
    ['an unknown pre-tokenizer', { pre_tokenizer: { type: 'Magic' } }],
    ['added tokens that are none', { added_tokens: [{ id: 'x' }] }],
    ['an added token of id 1e99', { added_tokens: [{ id: 1e99, content: 'x' }] }],
    ['a pattern that is none', { pre_tokenizer: { type: 'Split', pattern: { Regex: '(' } } }],
  ])('tokenizer.json: %s', (_, json) => {
    expect(codeOf(() => fromFolder({}, json))).toBe('INVALID_FILE');
  });

  it('tokenizer.json: never anything but GqaError', () => {
    const keys = [
      'model',
      'normalizer',
      'pre_tokenizer',
      'post_processor',
      'decoder',
      'added_tokens',
    ];
    fc.assert(
      fc.property(fc.constantFrom(...keys), fc.jsonValue({ maxDepth: 3 }), (key, value) => {
        codeOf(() => fromFolder({}, { [key]: value }));
      }),
      { numRuns: 200 },
    );
  });
});

describe('chat templates', () => {
  const template =
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{{ eos_token }}{% endfor %}" +
    '{% if add_generation_prompt %}[assistant]{% endif %}';
  const messages = [{ role: 'user', content: 'hi {{ x }}' }];
  const expected = '[user]hi {{ x }}<|end|>[assistant]';

  it.each<[string, object, Record<string, string>]>([
    ['the field', { chat_template: template }, {}],
    [
      'a list of named ones',
      {
        chat_template: [
          { name: 'tool', template: 'x' },
          { name: 'default', template },
        ],
      },
      {},
    ],
    ['a file of its own', {}, { 'chat_template.jinja': template }],
  ])('come from %s', (_, config, files) => {
    const tokenizer = fromFolder(config, {}, files);
    expect(tokenizer.hasChatTemplate).toBe(true);
    expect(tokenizer.applyChatTemplate(messages)).toBe(expected);
  });

  it('say no in their own words', () => {
    const strict = fromFolder({ chat_template: "{{ raise_exception('roles must alternate') }}" });
    expect(() => strict.applyChatTemplate(messages)).toThrow(/roles must alternate/);
    expect(codeOf(() => strict.applyChatTemplate(messages))).toBe('INVALID_ARGUMENT');
    const broken = fromFolder({ chat_template: '{% for %}' });
    expect(codeOf(() => broken.applyChatTemplate(messages))).toBe('INVALID_FILE');
  });

  it('refuse what are no messages, and messages without a template', () => {
    const tokenizer = fromFolder({ chat_template: template });
    const refused = (value: unknown) =>
      codeOf(() => tokenizer.applyChatTemplate(value as typeof messages));
    for (const value of ['hi', [1], [{ role: 'user' }], [{ role: 1, content: 'x' }], [null]]) {
      expect(refused(value)).toBe('INVALID_ARGUMENT');
    }
    expect(codeOf(() => fromFolder({}).applyChatTemplate(messages))).toBe('INVALID_ARGUMENT');
  });
});

describe('Detokenizer', () => {
  const tokenizer = fromFolder({ add_bos_token: true });

  it('gives the text of the ids in pieces without half characters', () => {
    const text = fc.string({
      unit: fc.oneof(
        fc.constantFrom('a', ' the', 'é', '日', '😀', '👩‍👧'),
        fc.string({ unit: 'grapheme', minLength: 1, maxLength: 1 }),
      ),
      maxLength: 12,
    });
    fc.assert(
      fc.property(text, text, (prompt, answer) => {
        fc.pre(!(prompt + answer).includes('\ufffd') && wellFormed(prompt + answer));
        const detokenizer = new Detokenizer(tokenizer, tokenizer.encode(prompt));
        const pieces = tokenizer.encode(answer, { bos: false }).map((id) => detokenizer.push(id));
        expect(pieces.join('')).toBe(answer);
        expect(pieces.every((piece) => wellFormed(piece) && !piece.includes('\ufffd'))).toBe(true);
      }),
      { numRuns: 300 },
    );
  });

  it('shows bytes that are no character as such once they cannot become one', () => {
    const [, lead] = tokenizer.encode('é');
    const [, plain] = tokenizer.encode('a');
    const detokenizer = new Detokenizer(tokenizer, []);
    expect(detokenizer.push(lead)).toBe('');
    expect(detokenizer.push(plain)).toBe('\ufffda');
  });

  it('stays fast when nothing but broken bytes comes', () => {
    const [, lead] = tokenizer.encode('é');
    const detokenizer = new Detokenizer(tokenizer, []);
    let text = '';
    for (let i = 0; i < 2000; i++) text += detokenizer.push(lead);
    expect(text.length).toBeGreaterThan(1900);
  });

  it('gives no text to special tokens, and goes on after them', () => {
    const [, once] = tokenizer.encode('Once');
    const detokenizer = new Detokenizer(tokenizer, [1]);
    expect([0, once, 0, 0, once].map((id) => detokenizer.push(id))).toEqual([
      '',
      'Once',
      '',
      '',
      'Once',
    ]);
  });

  it('is silent without a tokenizer', () => {
    expect(new Detokenizer(missingTokenizer('x'), [1]).push(5)).toBe('');
  });
});
