/**
 * TokenizerSource from GGUF metadata: the tokenizer.json that describes the same vocabulary.
 * 'gpt2' is byte-level BPE with a pre-tokenizer chosen by name; 'llama' is SentencePiece, BPE by score with bytes as
 * last resort.
 */
import { isDeepStrictEqual } from 'node:util';
import type { GgufFile, GgufValue } from '../format/gguf';
import { isObject, JsonFields, type JsonObject, unsupported } from './json-fields';
import type { TokenizerSource } from './tokenizer';
import { BYTE_LEVEL, GPT2_PATTERN, split } from './tokenizer-json';

/** tokenizer.ggml.token_type */
export const TOKEN_TYPE = {
  normal: 1,
  unknown: 2,
  control: 3,
  userDefined: 4,
  unused: 5,
  byte: 6,
} as const;

const CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
/** One to three digits. */
const THREE_DIGITS = '\\p{N}{1,3}';

/** Words with any one symbol before them, numbers, symbols with the line breaks (and `also`) after them, spaces. */
function wordPattern(words: string, numbers: string, also = ''): string {
  return (
    `${words}|${numbers}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n${also}]*|` + '\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+'
  );
}

const LETTERS = `${CONTRACTIONS}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+`;

/** Words end where a capital follows a small letter; `tail` belongs to a word. */
function casedWords(tail: string): string {
  const letters = (capitals: string, small: string): string =>
    '[^\\r\\n\\p{L}\\p{N}]?' +
    `[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]${capitals}[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]${small}${tail}`;
  return `${letters('*', '+')}|${letters('+', '*')}`;
}

/** Runs of punctuation, as the library and the reference know it. */
const PUNCTUATION = '[\\p{P}$+<=>^`|~]+';

interface BpeKind {
  /** Applied in turn: each cuts the pieces of the one before. */
  patterns: readonly string[];
  normalizer?: 'NFC';
  /** A piece that is a token as a whole is taken, whatever the merges would make of it. */
  wholePieces?: boolean;
  /** Where the file does not say. */
  addBos?: boolean;
}

const GPT2: BpeKind = { patterns: [GPT2_PATTERN] };
const DIGITS: BpeKind = { patterns: ['\\p{N}', GPT2_PATTERN] };
const FALCON: BpeKind = { patterns: [PUNCTUATION, GPT2_PATTERN, '\\p{N}+', '[0-9][0-9][0-9]'] };
const CL100K: BpeKind = { patterns: [wordPattern(LETTERS, THREE_DIGITS)], wholePieces: true };
const LLAMA3: BpeKind = { ...CL100K, addBos: true };
const QWEN2: BpeKind = { patterns: [wordPattern(LETTERS, '\\p{N}')], normalizer: 'NFC' };
const O200K: BpeKind = {
  patterns: [wordPattern(casedWords(`${CONTRACTIONS}?`), THREE_DIGITS, '/')],
  wholePieces: true,
};
const TEKKEN: BpeKind = {
  patterns: [wordPattern(casedWords(''), '\\p{N}', '/')],
  wholePieces: true,
  addBos: true,
};

/** By tokenizer.ggml.pre; llama.cpp's llama-vocab.cpp has the full list of names. */
const BPE_KINDS: ReadonlyMap<string, BpeKind> = new Map([
  ['default', GPT2],
  ['gpt-2', GPT2],
  ['mpt', GPT2],
  ['olmo', GPT2],
  ['phi-2', GPT2],
  ['smollm', DIGITS],
  ['starcoder', DIGITS],
  ['refact', DIGITS],
  ['command-r', DIGITS],
  ['codeshell', DIGITS],
  ['llama3', LLAMA3],
  ['llama-v3', LLAMA3],
  ['llama-bpe', LLAMA3],
  ['falcon3', LLAMA3],
  ['falcon', FALCON],
  ['chatglm-bpe', CL100K],
  ['glm4', CL100K],
  ['dbrx', CL100K],
  ['smaug-bpe', CL100K],
  ['gpt-4o', O200K],
  ['llama4', O200K],
  ['tekken', TEKKEN],
  ['qwen2', QWEN2],
  ['deepseek-r1-qwen', QWEN2],
]);

/** The names by which other readers know the kinds best. */
const BPE_NAMES = ['gpt-2', 'smollm', 'llama-bpe', 'qwen2', 'gpt-4o', 'tekken'];

/**
 * The value of tokenizer.ggml.pre for a tokenizer.json as prepareTokenizerJson leaves it; null where it is no byte-level
 * BPE, or cuts text in a way that has no name here.
 */
export function bpeKindName(json: JsonObject): string | null {
  const model = isObject(json.model) ? json.model : {};
  if (model.type !== 'BPE' || model.byte_fallback === true) return null;
  const parts = preTokenizers(json.pre_tokenizer);
  const found = BPE_NAMES.find((name) => {
    const { patterns, normalizer = null, wholePieces = false } = BPE_KINDS.get(name)!;
    return (
      isDeepStrictEqual(parts, [...patterns.map(split), BYTE_LEVEL]) &&
      isDeepStrictEqual(json.normalizer ?? null, normalizer && { type: normalizer }) &&
      (model.ignore_merges ?? false) === wholePieces
    );
  });
  return found ?? null;
}

/** One after the other; what trims offsets of tokens, and not tokens, is left out. */
function preTokenizers(pre: unknown): unknown[] {
  if (!isObject(pre)) return [pre];
  if (pre.type === 'Sequence' && Array.isArray(pre.pretokenizers)) {
    return pre.pretokenizers.flatMap(preTokenizers);
  }
  return [pre.type === 'ByteLevel' ? { ...pre, trim_offsets: BYTE_LEVEL.trim_offsets } : pre];
}

/** Null where the file has no vocabulary. @throws GqaError INVALID_FILE, UNSUPPORTED_MODEL */
export function readGgufTokenizer(file: GgufFile): TokenizerSource | null {
  const metadata = new JsonFields(file.path, Object.fromEntries(file.metadata));
  const kind = metadata.text('tokenizer.ggml.model');
  if (kind === null || kind === 'none' || kind === 'no_vocab') return null;
  const vocabulary = readVocabulary(file, metadata);
  if (kind === 'gpt2') return bpeTokenizer(file, metadata, vocabulary);
  if (kind === 'llama') return sentencePieceTokenizer(file, metadata, vocabulary);
  throw unsupported('tokenizer.ggml.model', 'gpt2, llama', `'${kind.slice(0, 80)}'`);
}

interface Vocabulary {
  tokens: string[];
  types: number[];
}

function readVocabulary(file: GgufFile, metadata: JsonFields): Vocabulary {
  const tokens = list(file, metadata, 'tokens', isText);
  const types = file.metadata.has('tokenizer.ggml.token_type')
    ? list(file, metadata, 'token_type', isNumber)
    : tokens.map(() => TOKEN_TYPE.normal);
  if (types.length !== tokens.length) {
    throw metadata.wrong('tokenizer.ggml.token_type', `${tokens.length} types`, types);
  }
  return { tokens, types };
}

function bpeTokenizer(
  file: GgufFile,
  metadata: JsonFields,
  vocabulary: Vocabulary,
): TokenizerSource {
  const pre = metadata.text('tokenizer.ggml.pre') ?? 'default';
  const kind = BPE_KINDS.get(pre);
  if (kind === undefined) {
    const known = [...BPE_KINDS.keys()].join(', ');
    throw unsupported('tokenizer.ggml.pre', known, `'${pre.slice(0, 80)}'`);
  }
  const merges = list(file, metadata, 'merges', isText).map((merge) => {
    // The space between the parts; a part may be a space only in vocabularies that are not byte-level.
    const at = merge.indexOf(' ', 1);
    return [merge.slice(0, at), merge.slice(at + 1)];
  });
  const json = {
    normalizer: kind.normalizer === undefined ? null : { type: kind.normalizer },
    pre_tokenizer: { type: 'Sequence', pretokenizers: [...kind.patterns.map(split), BYTE_LEVEL] },
    model: {
      type: 'BPE',
      vocab: idByToken(vocabulary.tokens),
      merges,
      ignore_merges: kind.wholePieces ?? false,
    },
    post_processor: null,
    decoder: { type: 'ByteLevel' },
    added_tokens: addedTokens(vocabulary),
  };
  return source(file, metadata, vocabulary, json, kind.addBos ?? false);
}

/** SentencePiece writes spaces as U+2581, one of them before a text. */
const SPACE = '\u2581';

function sentencePieceTokenizer(
  file: GgufFile,
  metadata: JsonFields,
  vocabulary: Vocabulary,
): TokenizerSource {
  const scores = list(file, metadata, 'scores', isNumber);
  if (scores.length !== vocabulary.tokens.length) {
    throw metadata.wrong('tokenizer.ggml.scores', `${vocabulary.tokens.length} scores`, scores);
  }
  const prefixed = metadata.flag('tokenizer.ggml.add_space_prefix', true);
  const unknown = metadata.ids('tokenizer.ggml.unknown_token_id')[0] ?? 0;
  const replaceSpaces = { type: 'Replace', pattern: { String: ' ' }, content: SPACE };
  const restoreSpaces = { type: 'Replace', pattern: { String: SPACE }, content: ' ' };
  const json = {
    normalizer: {
      type: 'Sequence',
      normalizers: prefixed
        ? [{ type: 'Prepend', prepend: SPACE }, replaceSpaces]
        : [replaceSpaces],
    },
    pre_tokenizer: null,
    model: {
      type: 'BPE',
      vocab: idByToken(vocabulary.tokens),
      merges: mergesByScore(vocabulary, scores),
      unk_token: vocabulary.tokens[unknown] ?? null,
      fuse_unk: true,
      byte_fallback: true,
    },
    post_processor: null,
    decoder: {
      type: 'Sequence',
      decoders: [
        restoreSpaces,
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        ...(prefixed ? [{ type: 'Strip', content: ' ', start: 1, stop: 0 }] : []),
      ],
    },
    added_tokens: addedTokens(vocabulary),
  };
  return source(file, metadata, vocabulary, json, true);
}

/**
 * SentencePiece joins, again and again, the two neighbours whose union is the token of the highest score. As merges:
 * every way to cut a token into two tokens, best scores first. SentencePiece takes the leftmost of equal scores; of the
 * cuts of one token, the longest left part first comes to the same in runs of one character.
 */
function mergesByScore({ tokens, types }: Vocabulary, scores: readonly number[]): string[][] {
  const ids = new Map<string, number>();
  tokens.forEach((token, id) => {
    if (types[id] === TOKEN_TYPE.normal) ids.set(token, id);
  });
  const merges: { parts: [string, string]; score: number }[] = [];
  for (const [token, id] of ids) {
    // Code units: half of a surrogate pair is no token, so such cuts find nothing.
    for (let at = 1; at < token.length; at++) {
      const [left, right] = [token.slice(0, at), token.slice(at)];
      if (ids.has(left) && ids.has(right)) merges.push({ parts: [left, right], score: scores[id] });
    }
  }
  merges.sort((a, b) => b.score - a.score || b.parts[0].length - a.parts[0].length);
  return merges.map(({ parts }) => parts);
}

function idByToken(tokens: readonly string[]): Record<string, number> {
  return Object.fromEntries(tokens.map((token, id) => [token, id]));
}

/** Control tokens are special; a user's own tokens are found in a text too, but are text themselves. */
function addedTokens({ tokens, types }: Vocabulary): JsonObject[] {
  const added: JsonObject[] = [];
  tokens.forEach((content, id) => {
    const special = types[id] === TOKEN_TYPE.control || types[id] === TOKEN_TYPE.unknown;
    if (content === '' || (!special && types[id] !== TOKEN_TYPE.userDefined)) return;
    added.push({ id, content, special, normalized: false });
  });
  return added;
}

function source(
  file: GgufFile,
  metadata: JsonFields,
  { tokens }: Vocabulary,
  json: JsonObject,
  addBos: boolean,
): TokenizerSource {
  const named = (key: string): string | null =>
    tokens[metadata.ids(`tokenizer.ggml.${key}_token_id`)[0]] ?? null;
  const templateNames: Record<string, string> = {};
  for (const [key, name] of [
    ['unknown', 'unk_token'],
    ['padding', 'pad_token'],
  ]) {
    const token = named(key);
    if (token !== null) templateNames[name] = token;
  }
  return {
    path: file.path,
    json,
    addBos: metadata.flag('tokenizer.ggml.add_bos_token', addBos),
    bosToken: named('bos'),
    eosToken: named('eos'),
    chatTemplate: metadata.text('tokenizer.chat_template'),
    templateNames,
  };
}

function isText(value: GgufValue): value is string {
  return typeof value === 'string';
}

function isNumber(value: GgufValue): value is number {
  return typeof value === 'number';
}

function list<T extends GgufValue>(
  file: GgufFile,
  metadata: JsonFields,
  name: string,
  is: (value: GgufValue) => value is T,
): T[] {
  const key = `tokenizer.ggml.${name}`;
  const values = file.metadata.get(key);
  if (!Array.isArray(values)) throw metadata.wrong(key, 'a list', values);
  return values.map((value, i) => {
    if (!is(value)) throw metadata.wrong(`${key}[${i}]`, 'a value of its kind', value);
    return value;
  });
}
