/** GGUF metadata of a folder's tokenizer: byte-level BPE whose way of cutting text into words GGUF has a name for. */
import { expectedError } from '../../core/errors';
import type { GgufEntry, GgufKind, GgufValue } from '../../format/gguf-value';
import { isObject, type JsonObject, unsupported } from '../json-fields';
import type { Tokenizer } from '../tokenizer';
import { readFolderTokenizer } from '../tokenizer-folder';
import { bpeKindName, TOKEN_TYPE } from '../tokenizer-gguf';
import type { TokenizerSource } from '../tokenizer';
import type { ModelConfig } from '../types';

const BYTE_LEVEL_ONLY = 'byte-level BPE for GGUF';
/** Keys of the first three end tokens; readers take no more. */
const END_KEYS = ['eos_token_id', 'eot_token_id', 'eom_token_id'];

/** Empty where the folder has no tokenizer. @throws GqaError INVALID_FILE, UNSUPPORTED_MODEL */
export function tokenizerEntries(
  folder: string,
  config: ModelConfig,
  makeTokenizer: () => Tokenizer,
): Map<string, GgufEntry> {
  const source = readFolderTokenizer(folder);
  const entries = new Map<string, GgufEntry>();
  if (source === null) return entries;
  const set = (key: string, kind: GgufKind, value: GgufValue): void => {
    entries.set(`tokenizer.${key}`, { kind, value });
  };
  const setId = (key: string, id: number | null | undefined): void => {
    if (id !== null && id !== undefined) set(`ggml.${key}`, 'u32', id);
  };
  const tokenizer = makeTokenizer();
  const pre = bpeKindName(source.json);
  if (pre === null) throw unsupportedTokenizer('another way of cutting text into words');
  const { tokens, types } = vocabulary(source, config.vocabSize);
  set('ggml.model', 'string', 'gpt2');
  set('ggml.pre', 'string', pre);
  set('ggml.tokens', 'string[]', tokens);
  set('ggml.token_type', 'i32[]', types);
  set('ggml.merges', 'string[]', merges(source.json.model as JsonObject));
  setId('bos_token_id', tokenizer.bosTokenId ?? config.bosTokenId);
  END_KEYS.forEach((key, i) => setId(key, config.eosTokenIds[i]));
  if (config.eosTokenIds.length === 0) setId('eos_token_id', tokenizer.eosTokenId);
  for (const [key, name] of [
    ['unknown_token_id', 'unk_token'],
    ['padding_token_id', 'pad_token'],
  ]) {
    const id = tokens.indexOf(source.templateNames[name] ?? '');
    if (id >= 0) setId(key, id);
  }
  set('ggml.add_bos_token', 'bool', startsWithBos(tokenizer));
  if (source.chatTemplate !== null) set('chat_template', 'string', source.chatTemplate);
  return entries;
}

function unsupportedTokenizer(received: string): Error {
  return unsupported('the tokenizer', BYTE_LEVEL_ONLY, received);
}

/** Whether the tokenizer puts BOS, and nothing else, before a text. */
function startsWithBos(tokenizer: Tokenizer): boolean {
  const ids = tokenizer.encode('a');
  const prefix = ids.slice(0, ids.length - tokenizer.encode('a', { bos: false }).length);
  if (prefix.length === 0) return false;
  if (prefix.length === 1 && prefix[0] === tokenizer.bosTokenId) return true;
  throw unsupportedTokenizer('one that puts other tokens than BOS before a text');
}

/** By id; ids without a token, as in padded vocabularies, get an unused one. */
function vocabulary(
  { path, json }: TokenizerSource,
  vocabSize: number,
): { tokens: string[]; types: number[] } {
  const { vocab } = json.model as { vocab: Record<string, number> };
  const tokens = Array.from({ length: vocabSize }, (_, id) => `[PAD${id}]`);
  const types = new Array<number>(vocabSize).fill(TOKEN_TYPE.unused);
  const set = (content: string, id: number, type: number): void => {
    if (id >= vocabSize) {
      const expected = `token ids below vocab_size ${vocabSize} in ${path}`;
      throw expectedError('INVALID_FILE', 'tokenizer.json', expected, String(id));
    }
    tokens[id] = content;
    types[id] = type;
  };
  for (const [content, id] of Object.entries(vocab)) set(content, id, TOKEN_TYPE.normal);
  for (const { id, content, special } of json.added_tokens as JsonObject[]) {
    const type = special === true ? TOKEN_TYPE.control : TOKEN_TYPE.userDefined;
    set(content as string, id as number, type);
  }
  return { tokens, types };
}

/** Written 'a b' or ['a', 'b']. */
function merges(model: JsonObject): string[] {
  const list = model.merges;
  if (!Array.isArray(list)) throw unsupportedTokenizer('one without merges');
  return list.map((merge: unknown) => {
    const text = Array.isArray(merge) ? merge.join(' ') : merge;
    // A space within a part could not be told from that between the parts.
    if (typeof text === 'string' && text.split(' ').length === 2) return text;
    throw unsupportedTokenizer(isObject(merge) ? 'merges of no kind' : 'merges with spaces');
  });
}
