/**
 * Text as a language model is trained and judged on it: documents, each between BOS and EOS, joined and cut into windows of
 * token ids without overlap. Of each window, tokens 2 .. n are predicted from those before them.
 */
import { isUtf8 } from 'node:buffer';
import { readFileSync } from 'node:fs';
import { GqaError } from '../core/errors';
import type { Tokenizer } from '../model/tokenizer';

/** A line that ends a document. */
const DOCUMENT_END = /^<\|end\|>[ \t]*\r?$/m;
/** Fewer predict nothing. */
const MIN_WINDOW = 2;

export interface Corpus {
  /** Each of `window` ids; the last may be shorter, but has two at least. */
  windows: readonly Int32Array[];
  /** Ids in all windows. */
  tokens: number;
  documents: number;
  /** Tokens of the text that `maxTokens` left out. */
  cut: number;
}

export interface CorpusOptions {
  /** Tokens of a window. */
  window: number;
  /** Whole windows beyond so many tokens are left out. Default: none are. */
  maxTokens?: number;
}

/** @throws GqaError INVALID_TEXT where the file cannot be read, is empty or not UTF-8; what encodeCorpus throws */
export function readCorpus(path: string, tokenizer: Tokenizer, options: CorpusOptions): Corpus {
  return encodeCorpus(readText(path), tokenizer, options, path);
}

/**
 * Splits the text at lines `<|end|>`. Without such a line it is one document.
 * @param name of the text, for messages
 * @throws GqaError INVALID_TEXT where there is nothing to predict, NO_TOKENIZER
 */
export function encodeCorpus(
  text: string,
  tokenizer: Tokenizer,
  { window, maxTokens = Infinity }: CorpusOptions,
  name = 'text',
): Corpus {
  const documents = text
    .split(DOCUMENT_END)
    .map((document) => document.trim())
    .filter((document) => document !== '');
  const ids = documents.flatMap((document) => enclosed(document, tokenizer));
  const kept = Math.min(ids.length, Math.max(window, Math.floor(maxTokens / window) * window));
  const windows: Int32Array[] = [];
  for (let from = 0; from + MIN_WINDOW <= kept; from += window) {
    windows.push(Int32Array.from(ids.slice(from, Math.min(from + window, kept))));
  }
  if (windows.length === 0) throw unfit(name, 'text of two tokens at least', 'less');
  const tokens = windows.reduce((sum, { length }) => sum + length, 0);
  return { windows, tokens, documents: documents.length, cut: ids.length - kept };
}

/** BOS, the document's ids, EOS: those of the two that the model has. */
function enclosed(document: string, tokenizer: Tokenizer): number[] {
  const ids = tokenizer.encode(document, { bos: false });
  const { bosTokenId, eosTokenId } = tokenizer;
  if (bosTokenId !== null && ids[0] !== bosTokenId) ids.unshift(bosTokenId);
  if (eosTokenId !== null) ids.push(eosTokenId);
  return ids;
}

function readText(path: string): string {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (cause) {
    const reason = (cause as NodeJS.ErrnoException).code ?? String(cause);
    throw unfit(path, 'a readable text file', reason, cause);
  }
  if (!isUtf8(bytes)) throw unfit(path, 'UTF-8 text', 'other bytes');
  const text = bytes.toString('utf8');
  if (text.includes('\0')) throw unfit(path, 'text', 'bytes of zero');
  if (text.trim() === '') throw unfit(path, 'text', 'an empty file');
  return text;
}

function unfit(path: string, expected: string, received: string, cause?: unknown): GqaError {
  return new GqaError('INVALID_TEXT', `${path}: expected ${expected} but found ${received}`, {
    argument: path,
    expected,
    received,
    cause,
  });
}
