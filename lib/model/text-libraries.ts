/**
 * The libraries that tokenise and render chat templates. Both ship CommonJS but declare types for their ES module only,
 * which a static import from CommonJS may not use: they are required and typed here, once.
 */
import { createRequire } from 'node:module';

const load = createRequire(__filename);

/** The part of @huggingface/tokenizers' Tokenizer that is used here. */
export interface LibraryTokenizer {
  /** An id is undefined for a piece that is in no vocabulary and has no unknown token. */
  encode(text: string, options: { add_special_tokens: boolean }): { ids: (number | undefined)[] };
  decode(
    ids: number[],
    options: { skip_special_tokens: boolean; clean_up_tokenization_spaces: boolean },
  ): string;
  token_to_id(token: string): number | undefined;
  id_to_token(id: number): string | undefined;
  get_added_tokens_decoder(): Map<number, { content: string; special: boolean }>;
  readonly decoder: LibraryDecoder | null;
}

interface LibraryDecoder {
  text_decoder?: { readonly ignoreBOM: boolean };
  /** Of a sequence. */
  decoders?: (LibraryDecoder | null)[];
}

/** The part of @huggingface/jinja's Template that is used here. */
export interface LibraryTemplate {
  render(names: Record<string, unknown>): string;
}

export function newTokenizer(json: object, config: object): LibraryTokenizer {
  const library = load('@huggingface/tokenizers') as {
    Tokenizer: new (json: object, config: object) => LibraryTokenizer;
  };
  const tokenizer = new library.Tokenizer(json, config);
  keepByteOrderMarks(tokenizer.decoder);
  return tokenizer;
}

/** The decoder of byte tokens would drop U+FEFF where a run of them begins with it. */
function keepByteOrderMarks(decoder: LibraryDecoder | null): void {
  if (decoder === null) return;
  if (decoder.text_decoder?.ignoreBOM === false) {
    decoder.text_decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  }
  decoder.decoders?.forEach(keepByteOrderMarks);
}

export function newTemplate(text: string): LibraryTemplate {
  const library = load('@huggingface/jinja') as { Template: new (text: string) => LibraryTemplate };
  return new library.Template(text);
}
