/** TokenizerSource of a Hugging Face folder: tokenizer.json, tokenizer_config.json, and files that newer folders add. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { readJsonFile, readTextFile } from '../format/file';
import { isObject, JsonFields, type JsonObject } from './json-fields';
import { prepareTokenizerJson } from './tokenizer-json';
import type { TokenizerSource } from './tokenizer';

/** The largest real ones, of vocabularies of 262,144, have some 35 megabytes. */
const MAX_TOKENIZER_BYTES = 2 ** 27;
const MAX_CONFIG_BYTES = 2 ** 24;

/** Tokens that tokenizer_config.json or special_tokens_map.json names and templates use. */
const TOKEN_NAMES = ['bos_token', 'eos_token', 'unk_token', 'pad_token', 'sep_token', 'cls_token'];

/** Null where the folder has no tokenizer.json. @throws GqaError INVALID_FILE */
export function readFolderTokenizer(folder: string): TokenizerSource | null {
  const path = join(folder, 'tokenizer.json');
  if (!existsSync(path)) return null;
  const json = new JsonFields(path, readJsonFile(path, MAX_TOKENIZER_BYTES));
  const config = optionalJson(folder, 'tokenizer_config.json');
  const specials = optionalJson(folder, 'special_tokens_map.json');
  const templateNames: Record<string, string> = {};
  for (const name of TOKEN_NAMES) {
    const text = tokenText(config, name) ?? tokenText(specials, name);
    if (text !== null) templateNames[name] = text;
  }
  return {
    path: folder,
    json: prepareTokenizerJson(json, addedTokens(config)),
    addBos: config.has('add_bos_token') ? config.flag('add_bos_token', false) : undefined,
    bosToken: templateNames.bos_token ?? null,
    eosToken: templateNames.eos_token ?? null,
    chatTemplate: readChatTemplate(folder, config),
    templateNames,
  };
}

function optionalJson(folder: string, name: string): JsonFields {
  const path = join(folder, name);
  return new JsonFields(path, existsSync(path) ? readJsonFile(path, MAX_CONFIG_BYTES) : {});
}

/** A token is text, or an object with its text as content. */
function tokenText(fields: JsonFields, name: string): string | null {
  const value = fields.raw(name);
  return isObject(value) ? fields.object(name).text('content') : fields.text(name);
}

/** added_tokens_decoder: { "id": { content, special, ... } }. */
function addedTokens(config: JsonFields): JsonObject[] {
  const decoder = config.raw('added_tokens_decoder') ?? {};
  if (!isObject(decoder)) throw config.wrong('added_tokens_decoder', 'an object', decoder);
  return Object.entries(decoder).map(([id, token]) => {
    if (!isObject(token)) throw config.wrong(`added_tokens_decoder.${id}`, 'an object', token);
    return { ...token, id: Number(id) };
  });
}

/**
 * chat_template.jinja, or the field of that name: text, or a list of named templates with one named 'default'; or the file
 * of the folder's processor.
 */
function readChatTemplate(folder: string, config: JsonFields): string | null {
  const path = join(folder, 'chat_template.jinja');
  if (existsSync(path)) return readTextFile(path, MAX_CONFIG_BYTES);
  const templates = config.raw('chat_template');
  if (!Array.isArray(templates)) {
    return (
      config.text('chat_template') ??
      optionalJson(folder, 'chat_template.json').text('chat_template')
    );
  }
  for (const entry of templates) {
    const fields = new JsonFields('tokenizer_config.json: chat_template', entry);
    if (fields.text('name') === 'default') return fields.text('template');
  }
  return null;
}
