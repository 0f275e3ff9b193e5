/** tokenizer.json and tokenizer_config.json from GGUF metadata, as the reference tokenizers read them. */
import type { GgufFile } from '../../format/gguf';
import { isObject, type JsonObject } from '../json-fields';
import type { TokenizerSource } from '../tokenizer';
import { readGgufTokenizer } from '../tokenizer-gguf';

/** By name; none where the file has no vocabulary. @throws GqaError INVALID_FILE, UNSUPPORTED_MODEL */
export function tokenizerFiles(file: GgufFile, contextLength: number): Record<string, string> {
  const source = readGgufTokenizer(file);
  if (source === null) return {};
  return {
    'tokenizer.json': JSON.stringify(tokenizerJson(source)),
    'tokenizer_config.json': `${JSON.stringify(tokenizerConfig(source, contextLength), null, 2)}\n`,
  };
}

function tokenizerJson(source: TokenizerSource): JsonObject {
  const { normalizer, pre_tokenizer, decoder, model, added_tokens } = source.json;
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: (added_tokens as JsonObject[]).map((token) => ({
      ...token,
      single_word: false,
      lstrip: false,
      rstrip: false,
    })),
    normalizer,
    pre_tokenizer,
    post_processor: postProcessor(source),
    decoder: completeDecoder(decoder),
    model,
  };
}

/** The reference reads no ByteLevel without its flags. */
function completeDecoder(decoder: unknown): unknown {
  if (!isObject(decoder) || decoder.type !== 'ByteLevel') return decoder;
  return { add_prefix_space: false, trim_offsets: true, use_regex: true, ...decoder };
}

/** Puts BOS before every text. */
function postProcessor({ json, addBos, bosToken }: TokenizerSource): JsonObject | null {
  if (addBos !== true || bosToken === null) return null;
  const { vocab } = json.model as { vocab: Record<string, number> };
  const bos = { SpecialToken: { id: bosToken, type_id: 0 } };
  const text = (id: string, type: number): JsonObject => ({ Sequence: { id, type_id: type } });
  return {
    type: 'TemplateProcessing',
    single: [bos, text('A', 0)],
    pair: [bos, text('A', 0), text('B', 1)],
    special_tokens: { [bosToken]: { id: bosToken, ids: [vocab[bosToken]], tokens: [bosToken] } },
  };
}

function tokenizerConfig(source: TokenizerSource, contextLength: number): JsonObject {
  const { bosToken, eosToken, addBos, chatTemplate, templateNames } = source;
  return {
    tokenizer_class: 'PreTrainedTokenizerFast',
    bos_token: bosToken,
    eos_token: eosToken,
    ...templateNames,
    add_bos_token: addBos ?? false,
    clean_up_tokenization_spaces: false,
    model_max_length: contextLength,
    ...(chatTemplate === null ? {} : { chat_template: chatTemplate }),
  };
}
