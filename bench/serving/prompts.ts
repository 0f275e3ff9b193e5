/** Prompts of ids: words of the model's own vocabulary, different for each client, the same in every run. */
import type { Tokenizer } from '../../lib';

const TEXT =
  'The harbour town had three bridges, and every morning the baker crossed the oldest of them with a basket of ' +
  'bread while gulls argued over the river. Nobody remembered who had built it, though the stones carried marks ' +
  'that looked like letters. A child once copied them into a notebook and asked the teacher what they meant. ';

/** `tokens` ids; texts of different numbers differ from their first token on. */
export function promptOf(tokenizer: Tokenizer, number: number, tokens: number): number[] {
  const begin = `Chapter ${number}. `;
  const ids = tokenizer.encode(begin + TEXT.repeat(Math.ceil(tokens / 40)));
  return ids.slice(0, tokens);
}

/** What prompt lookup is for: a text to be copied, and the beginning of the copy. */
export function copyPrompt(tokenizer: Tokenizer): number[] {
  const list = Array.from(
    { length: 12 },
    (_, i) => `item ${i + 1}: box ${(i * 37) % 91} on shelf ${(i * 53) % 17}, checked by Ann\n`,
  ).join('');
  return tokenizer.encode(`${list}\nThe same list again:\n${list}\nThe same list again:\n`);
}
