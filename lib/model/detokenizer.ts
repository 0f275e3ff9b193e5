/**
 * Token ids to text one by one. A character may be spread over tokens: text is given out when it is whole, so no piece
 * ever ends in half a character. Each id is decoded after its neighbours, since some decoders treat the first token
 * of a text in their own way.
 */
import type { Tokenizer } from './tokenizer';

/** What a decoder writes for bytes that are no character (yet). */
const BROKEN = '\uFFFD';
/** A character has at most 4 bytes: tokens that make none after this many never will. */
const MAX_PENDING = 16;
/**
 * Enough of what stands before for the first new token to be decoded as a continuation: even where it begins and ends
 * within characters of single bytes' tokens, a whole one stands between.
 */
const CONTEXT_TOKENS = 8;

export class Detokenizer {
  /** The last tokens whose text was given out, then those that wait. */
  private ids: number[];
  private waiting = 0;
  /** Characters of the text of `ids` that were given out. */
  private given: number;

  /** @param prompt the ids before the first that is pushed */
  constructor(
    private readonly tokenizer: Tokenizer,
    prompt: readonly number[],
  ) {
    this.ids = prompt.slice(-CONTEXT_TOKENS);
    this.given = withoutBrokenEnd(this.decode()).length;
  }

  /** The text that has become certain with this id; empty within a character and for special tokens. */
  push(id: number): string {
    this.ids.push(id);
    this.waiting++;
    const text = this.decode();
    const piece = text.slice(this.given);
    const whole = piece !== '' && !text.endsWith(BROKEN);
    if (!whole && this.waiting < MAX_PENDING) return '';
    this.ids = this.ids.slice(-this.waiting);
    this.waiting = 0;
    this.given = this.decode().length;
    return piece;
  }

  private decode(): string {
    return this.tokenizer.available ? this.tokenizer.decode(this.ids) : '';
  }
}

function withoutBrokenEnd(text: string): string {
  let end = text.length;
  while (text.endsWith(BROKEN, end)) end--;
  return text.slice(0, end);
}
