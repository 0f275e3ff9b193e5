/**
 * Tokenizers and chat templates against Hugging Face's tokenizers, SentencePiece and Jinja on odd texts
 * (scripts/make-golden-text.py).
 */
import fc from 'fast-check';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../../lib/backend/package-root';
import { GqaError } from '../../../lib/core/errors';
import type { GgufFile, GgufValue } from '../../../lib/format/gguf';
import { Detokenizer } from '../../../lib/model/detokenizer';
import { createTokenizer, type Tokenizer } from '../../../lib/model/tokenizer';
import { readFolderTokenizer } from '../../../lib/model/tokenizer-folder';
import { readGgufTokenizer } from '../../../lib/model/tokenizer-gguf';
import { temporaryFolder, write } from '../format/build-files';

const FOLDER = join(packageRoot(), 'test', 'golden', 'text');

interface Encodings {
  texts: string[];
  ids: number[][];
}
interface TokenizerGolden extends Encodings {
  tokenizer: {
    model: { vocab: Record<string, number>; merges: [string, string][] };
    added_tokens: { id: number; content: string }[];
  };
  decoded: string[];
  /** tokenizer.ggml.pre; null where GGUF has no word for it. */
  pre: string | null;
}
interface SentencePieceGolden extends Encodings {
  tokens: string[];
  scores: number[];
  types: number[];
  addSpacePrefix: boolean;
}

function read<T>(name: string): T {
  return JSON.parse(readFileSync(join(FOLDER, `${name}.json`), 'utf8')) as T;
}

const NAMES = readdirSync(FOLDER)
  .map((file) => file.replace(/\.json$/, ''))
  .filter((name) => name !== 'templates');
const GOLDENS = NAMES.filter((name) => !name.endsWith('.model')).map(
  (name) => [name, read<TokenizerGolden>(name)] as const,
);

const path = temporaryFolder();

function fromFolder(name: string, golden: TokenizerGolden): Tokenizer {
  const folder = path(name);
  mkdirSync(folder, { recursive: true });
  write(join(folder, 'tokenizer.json'), Buffer.from(JSON.stringify(golden.tokenizer)));
  return createTokenizer(readFolderTokenizer(folder)!);
}

function fromGguf(entries: Record<string, GgufValue>): Tokenizer {
  const metadata = new Map(Object.entries(entries).map(([k, v]) => [`tokenizer.ggml.${k}`, v]));
  return createTokenizer(readGgufTokenizer({ path: 'x.gguf', metadata } as unknown as GgufFile)!);
}

function expectEncodings(tokenizer: Tokenizer, { texts, ids }: Encodings): void {
  texts.forEach((text, i) => {
    expect([text, tokenizer.encode(text, { bos: false })]).toEqual([text, ids[i]]);
  });
}

/** In pieces as in whole, and no piece in half a character. */
function expectPieces(tokenizer: Tokenizer, ids: readonly number[]): void {
  const detokenizer = new Detokenizer(tokenizer, []);
  const pieces = ids.map((id) => detokenizer.push(id));
  const whole = tokenizer.decode(ids);
  expect(pieces.join('')).toBe(whole);
  for (const piece of pieces) expect(Buffer.from(piece).toString()).toBe(piece);
}

describe.each(GOLDENS)('%s', (name, golden) => {
  const tokenizer = fromFolder(name, golden);

  test('encodes as the reference', () => expectEncodings(tokenizer, golden));

  test('decodes as the reference', () => {
    golden.ids.forEach((ids, i) => {
      const decoded = tokenizer.decode(ids, { skipSpecialTokens: false });
      expect([golden.texts[i], decoded]).toEqual([golden.texts[i], golden.decoded[i]]);
    });
  });

  test('gives text in whole characters', () => {
    golden.ids.forEach((ids) => expectPieces(tokenizer, ids));
  });
});

test.each(GOLDENS.filter(([, { pre }]) => pre !== null))('%s of GGUF', (_, golden) => {
  const { model, added_tokens: added } = golden.tokenizer;
  const tokens: string[] = [];
  for (const [token, id] of Object.entries(model.vocab)) tokens[id] = token;
  const special = new Set(added.map(({ id }) => id));
  const tokenizer = fromGguf({
    model: 'gpt2',
    pre: golden.pre!,
    tokens,
    merges: model.merges.map((parts) => parts.join(' ')),
    token_type: tokens.map((_token, id) => (special.has(id) ? 3 : 1)),
  });
  expectEncodings(tokenizer, golden);
});

test.each(NAMES.filter((name) => name.endsWith('.model')))('%s: SentencePiece', (name) => {
  const golden = read<SentencePieceGolden>(name);
  const tokenizer = fromGguf({
    model: 'llama',
    tokens: golden.tokens,
    scores: golden.scores,
    token_type: golden.types,
    add_space_prefix: golden.addSpacePrefix,
    add_bos_token: false,
  });
  expectEncodings(tokenizer, golden);
  golden.ids.forEach((ids, i) => {
    expect(tokenizer.decode(ids)).toBe(golden.texts[i]);
    expectPieces(tokenizer, ids);
  });
});

describe('any ids', () => {
  const goldenOf = (name: string) => GOLDENS.find(([found]) => found === name)![1];
  const tokenizers = ['gpt-4o', 'llama-spm', 'gemma-spm'].map((name) => {
    const golden = goldenOf(name);
    const size = Object.keys(golden.tokenizer.model.vocab).length;
    return [name, fromFolder(`${name}-any`, golden), size] as const;
  });
  /** Bytes of characters, and what makes none, in a row. */
  const bytes = fc.array(
    fc.oneof(
      fc.constantFrom(
        ...['é', '日', '😀', '👩‍👧', 'a\u0301', '\ufeff'].map((c) => [...Buffer.from(c)]),
      ),
      fc.array(fc.nat({ max: 255 }), { minLength: 1, maxLength: 3 }),
    ),
    { maxLength: 6 },
  );

  test.each(tokenizers)(
    '%s: pieces are whole characters, and together the text',
    (_, tokenizer, size) => {
      fc.assert(
        fc.property(fc.array(fc.nat({ max: size - 1 }), { maxLength: 12 }), (ids) => {
          const detokenizer = new Detokenizer(tokenizer, []);
          const pieces = ids.map((id) => detokenizer.push(id));
          for (const piece of pieces) expect(Buffer.from(piece).toString()).toBe(piece);
          const whole = tokenizer.decode(ids);
          const given = pieces.join('');
          // What waits at the end is the beginning of a character.
          expect(whole.slice(given.length)).toMatch(/^\ufffd*$/);
          expect(whole.startsWith(given)).toBe(true);
        }),
        { numRuns: 300 },
      );
    },
  );

  test.each(tokenizers.slice(1))('%s: bytes make the text that they are', (name, tokenizer) => {
    const { vocab } = goldenOf(name).tokenizer.model;
    const idOf = (byte: number) => vocab[`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`];
    fc.assert(
      fc.property(bytes, (parts) => {
        const all = parts.flat();
        const ids = all.map(idOf);
        expect(tokenizer.decode([vocab.a, ...ids, vocab.b])).toBe(
          `a${Buffer.from(all).toString()}b`,
        );
      }),
      { numRuns: 200 },
    );
  });
});

interface TemplateGolden {
  name: string;
  template: string;
  results: ({ text: string } | { error: string })[];
}

describe('chat templates', () => {
  const { names, conversations, templates } = read<{
    names: Record<string, string>;
    conversations: { role: string; content: string }[][];
    templates: TemplateGolden[];
  }>('templates');
  const json = GOLDENS[0][1].tokenizer;

  test.each(templates.map((golden) => [golden.name, golden] as const))('%s', (_, golden) => {
    const tokenizer = createTokenizer({
      path: 'x',
      json: { ...json, pre_tokenizer: null },
      addBos: undefined,
      bosToken: names.bos_token,
      eosToken: names.eos_token,
      chatTemplate: golden.template,
      templateNames: names,
    });
    conversations.forEach((messages, i) => {
      const expected = golden.results[i];
      if ('text' in expected) {
        expect(tokenizer.applyChatTemplate(messages)).toBe(expected.text);
        return;
      }
      const refusal = errorOf(() => tokenizer.applyChatTemplate(messages));
      expect(refusal.code).toBe('INVALID_ARGUMENT');
      expect(refusal.message).toContain(expected.error);
    });
  });
});

test('templates may ask for the date, and for tools', () => {
  const chatTemplate =
    '{% if strftime_now is defined %}{{ strftime_now("%Y %d") }}{% endif %}' +
    '{% if tools is not none %}tools{% endif %}{{ strftime_now(format) is defined }}';
  const tokenizer = createTokenizer({
    path: 'x',
    json: { ...GOLDENS[0][1].tokenizer },
    addBos: undefined,
    bosToken: null,
    eosToken: null,
    chatTemplate,
    templateNames: {},
  });
  expect(tokenizer.applyChatTemplate([])).toMatch(/^20\d\d \d\dtrue$/);
});

function errorOf(run: () => unknown): GqaError {
  try {
    run();
  } catch (error) {
    if (error instanceof GqaError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}
