/**
 * Text to token ids and back, through @huggingface/tokenizers; where the description comes from (tokenizer.json or GGUF
 * metadata) is the affair of tokenizer-folder.ts and tokenizer-gguf.ts.
 */
import { GqaError } from '../core/errors';
import { describe, requireInteger } from '../core/validate';
import { ChatTemplate, refuseWithoutTemplate, type ChatMessage } from './chat-template';
import type { JsonObject } from './json-fields';
import { newTokenizer, type LibraryTokenizer } from './text-libraries';
import { tokenBytesOf, type TokenBytes } from './token-bytes';

/** What a tokenizer is made of. */
export interface TokenizerSource {
  /** File or folder, for messages. */
  path: string;
  /** tokenizer.json, or its equivalent. */
  json: JsonObject;
  /** Whether a text gets BOS before it; undefined leaves it to json's post-processor. */
  addBos: boolean | undefined;
  bosToken: string | null;
  eosToken: string | null;
  chatTemplate: string | null;
  /** Further names that a chat template may use, such as pad_token. */
  templateNames: Readonly<Record<string, string>>;
}

export interface EncodeOptions {
  /** false: without the BOS that the model would put before a text. */
  bos?: boolean;
}

export interface DecodeOptions {
  /** false: special tokens appear as their text. */
  skipSpecialTokens?: boolean;
}

/** What a model offers as `model.tokenizer`. */
export interface Tokenizer {
  /** False for a model without tokenizer files: every method throws NO_TOKENIZER then. */
  readonly available: boolean;
  /**
   * Ids of a text. BOS stands first where the model wants it, never twice; text that spells a special token becomes
   * its id. @throws GqaError NO_TOKENIZER, INVALID_ARGUMENT
   */
  encode(text: string, options?: EncodeOptions): number[];
  /**
   * Text of ids, special tokens left out; an id that has no token has no text.
   * @throws GqaError NO_TOKENIZER, INVALID_ARGUMENT, OUT_OF_RANGE
   */
  decode(ids: ArrayLike<number>, options?: DecodeOptions): string;
  /**
   * The prompt that the model's chat template makes of messages, up to where the answer begins.
   * @throws GqaError NO_TOKENIZER; INVALID_ARGUMENT where there is no template or it refuses the messages; INVALID_FILE where
   *   the template cannot be read
   */
  applyChatTemplate(messages: readonly ChatMessage[]): string;
  /** UTF-8 that a token adds to a text, half a character perhaps; none for an id without a token. */
  tokenBytes(id: number): Uint8Array;
  /** The id of a special token's text, or undefined. @throws GqaError NO_TOKENIZER */
  specialTokenId(text: string): number | undefined;
  readonly hasChatTemplate: boolean;
  readonly bosTokenId: number | null;
  readonly eosTokenId: number | null;
}

/** @throws GqaError INVALID_FILE where the description makes no tokenizer. */
export function createTokenizer(source: TokenizerSource): Tokenizer {
  return guarded(source.path, () => new TextTokenizer(source));
}

/** Whatever a library throws over a damaged description is an INVALID_FILE. */
function guarded<T>(path: string, run: () => T): T {
  try {
    return run();
  } catch (cause) {
    if (cause instanceof GqaError) throw cause;
    const reason = (cause instanceof Error ? cause.message : String(cause)).slice(0, 200);
    throw new GqaError('INVALID_FILE', `${path}: no usable tokenizer: ${reason}`, {
      argument: path,
      expected: 'a tokenizer',
      cause,
    });
  }
}

class TextTokenizer implements Tokenizer {
  readonly available = true;
  readonly bosTokenId: number | null;
  readonly eosTokenId: number | null;
  private readonly library: LibraryTokenizer;
  /** What stands before every text. */
  private readonly prefix: readonly number[];
  private readonly specialIds = new Map<string, number>();
  private readonly bytesOf: TokenBytes;
  private readonly template: ChatTemplate | null;

  constructor(private readonly source: TokenizerSource) {
    this.template = templateOf(source);
    this.library = newTokenizer(source.json, {});
    this.bytesOf = tokenBytesOf(source.json.decoder);
    for (const [id, token] of this.library.get_added_tokens_decoder()) {
      if (token.special) this.specialIds.set(token.content, id);
    }
    this.bosTokenId = this.idOf(source.bosToken);
    this.eosTokenId = this.idOf(source.eosToken);
    this.prefix = this.readPrefix();
  }

  get hasChatTemplate(): boolean {
    return this.template !== null;
  }

  encode(text: string, options: EncodeOptions = {}): number[] {
    if (typeof text !== 'string') {
      throw new GqaError(
        'INVALID_ARGUMENT',
        `Expected a string for text but received ${describe(text)}`,
        {
          argument: 'text',
          expected: 'a string',
          received: describe(text),
        },
      );
    }
    const ids = this.plainIds(text);
    if (options.bos === false) return ids;
    // A text may spell its BOS out.
    const twice = this.prefix.length > 0 && this.prefix.every((id, i) => ids[i] === id);
    return twice ? ids : [...this.prefix, ...ids];
  }

  decode(ids: ArrayLike<number>, options: DecodeOptions = {}): string {
    const checked = Array.from(ids, (id, i) => requireInteger(id, `ids[${i}]`, 0));
    // A model's vocabulary may be padded beyond its tokenizer's.
    const list = checked.filter((id) => this.library.id_to_token(id) !== undefined);
    if (list.length === 0) return '';
    return guarded(this.source.path, () =>
      this.library.decode(list, {
        skip_special_tokens: options.skipSpecialTokens ?? true,
        // Would turn " ." into ".", and no longer be what was encoded.
        clean_up_tokenization_spaces: false,
      }),
    );
  }

  applyChatTemplate(messages: readonly ChatMessage[]): string {
    if (this.template === null) refuseWithoutTemplate();
    return this.template.render(messages);
  }

  tokenBytes(id: number): Uint8Array {
    const token = this.library.id_to_token(id);
    if (token === undefined) return new Uint8Array(0);
    // Added tokens are spelt as they are.
    const added = this.library.get_added_tokens_decoder().get(id);
    return added === undefined ? this.bytesOf(token) : new TextEncoder().encode(added.content);
  }

  specialTokenId(text: string): number | undefined {
    return this.specialIds.get(text);
  }

  private plainIds(text: string): number[] {
    if (text === '') return [];
    const encode = () => this.library.encode(text, { add_special_tokens: false });
    return guarded(this.source.path, encode).ids.filter((id) => id !== undefined);
  }

  private idOf(token: string | null): number | null {
    return token === null ? null : (this.library.token_to_id(token) ?? null);
  }

  /** What the post-processor puts before a text, with BOS as the model's files say. */
  private readPrefix(): number[] {
    const probe = 'a';
    const bare = this.plainIds(probe);
    const encoded = this.library.encode(probe, { add_special_tokens: true });
    const ids = encoded.ids.filter((id) => id !== undefined);
    const at = ids.findIndex((_, i) => bare.every((id, j) => ids[i + j] === id));
    const prefix = bare.length === 0 ? [] : ids.slice(0, Math.max(at, 0));
    const { bosTokenId } = this;
    const { addBos } = this.source;
    if (addBos === undefined || bosTokenId === null) return prefix;
    if (!addBos) return prefix.filter((id) => id !== bosTokenId);
    return prefix.includes(bosTokenId) ? prefix : [bosTokenId, ...prefix];
  }
}

function templateOf(source: TokenizerSource): ChatTemplate | null {
  const { path, chatTemplate, bosToken, eosToken, templateNames } = source;
  if (chatTemplate === null) return null;
  const ends = { bos_token: bosToken ?? '', eos_token: eosToken ?? '' };
  return new ChatTemplate(path, chatTemplate, { ...templateNames, ...ends });
}

/** Stands in for the tokenizer of a model without tokenizer files; `why` where there is more to say. */
export function missingTokenizer(path: string, why = 'has no tokenizer'): Tokenizer {
  const refuse = (): never => {
    throw new GqaError('NO_TOKENIZER', `${path} ${why}: give token ids instead of text`, {
      argument: 'text',
      expected: 'token ids',
      received: 'text',
    });
  };
  return {
    available: false,
    encode: refuse,
    decode: refuse,
    applyChatTemplate: refuse,
    tokenBytes: refuse,
    specialTokenId: refuse,
    hasChatTemplate: false,
    bosTokenId: null,
    eosTokenId: null,
  };
}
