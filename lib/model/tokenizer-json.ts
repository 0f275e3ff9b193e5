/**
 * Makes a tokenizer.json mean to the JavaScript library what it means to the reference (the Rust one): parts that may
 * be missing are filled in, and two pre-tokenizers whose JavaScript regular expressions know fewer characters
 * (\d is ASCII only, \s differs in U+0085 and U+FEFF) are written as Split, whose patterns the library translates.
 */
import { isObject, type JsonFields, type JsonObject } from './json-fields';

/** GPT-2's: contractions, words, numbers, other symbols, each with the space before it, and runs of spaces. */
export const GPT2_PATTERN =
  "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/** A pre-tokenizer that cuts a text into the matches of a pattern and what lies between them. */
export function split(pattern: string): JsonObject {
  return { type: 'Split', pattern: { Regex: pattern }, behavior: 'Isolated', invert: false };
}

/** Bytes to the characters that stand for them in byte-level vocabularies, without cutting. */
export const BYTE_LEVEL: JsonObject = {
  type: 'ByteLevel',
  add_prefix_space: false,
  trim_offsets: true,
  use_regex: false,
};

/**
 * @param added tokens of tokenizer_config.json, for ids that tokenizer.json itself does not add
 * @throws GqaError INVALID_FILE where the added tokens are no tokens
 */
export function prepareTokenizerJson(json: JsonFields, added: readonly JsonObject[]): JsonObject {
  const own = json.raw('added_tokens') ?? [];
  if (!Array.isArray(own)) throw json.wrong('added_tokens', 'a list', own);
  const tokens = [...(own as unknown[])];
  const ids = new Set(tokens.map((token) => (isObject(token) ? token.id : undefined)));
  for (const token of added) if (!ids.has(token.id)) tokens.push(token);
  for (const token of tokens) {
    const { id, content } = isObject(token) ? token : {};
    if (
      !Number.isSafeInteger(id) ||
      (id as number) < 0 ||
      typeof content !== 'string' ||
      content === ''
    ) {
      throw json.wrong('added_tokens', 'tokens with an id and a content', token);
    }
  }
  return {
    model: checkedModel(json),
    normalizer: json.raw('normalizer') ?? null,
    pre_tokenizer: exactPreTokenizer(json.raw('pre_tokenizer') ?? null),
    post_processor: json.raw('post_processor') ?? null,
    decoder: json.raw('decoder') ?? null,
    added_tokens: tokens,
  };
}

/** Vocabularies are { token: id } or, Unigram's, [[token, score]]. */
function checkedModel(json: JsonFields): JsonObject {
  const model = json.raw('model');
  if (!isObject(model)) throw json.wrong('model', 'an object', model);
  const { vocab } = model;
  const entries = isObject(vocab) ? Object.entries(vocab) : vocab;
  const isId = (id: unknown): boolean => Number.isSafeInteger(id) && (id as number) >= 0;
  const fits = (entry: unknown): boolean =>
    Array.isArray(entry) &&
    typeof entry[0] === 'string' &&
    (isObject(vocab) ? isId(entry[1]) : typeof entry[1] === 'number');
  if (!Array.isArray(entries) || !entries.every(fits)) {
    throw json.wrong('model.vocab', 'tokens and their ids or scores', vocab);
  }
  return model;
}

function exactPreTokenizer(pre: unknown): unknown {
  if (!isObject(pre)) return pre;
  switch (pre.type) {
    case 'Sequence':
      return Array.isArray(pre.pretokenizers)
        ? { ...pre, pretokenizers: pre.pretokenizers.map(exactPreTokenizer) }
        : pre;
    case 'Digits':
      return split(pre.individual_digits === true ? '\\p{N}' : '\\p{N}+');
    case 'ByteLevel':
      // A space put before the text must come before the pattern: the library does that right by itself.
      if (pre.add_prefix_space === true || pre.use_regex === false) return pre;
      return { type: 'Sequence', pretokenizers: [split(GPT2_PATTERN), BYTE_LEVEL] };
    default:
      return pre;
  }
}
