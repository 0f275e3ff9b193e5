/** Prompts to token ids; those that cannot fit are refused before they cost much. */
import { wellFormed } from './body';
import type { ServerContext } from './context';
import { ApiError, contextExceeded } from './errors';

/** Characters of a slice whose tokens are counted at a time. */
const SLICE = 8192;
/** A longer text, per token that would fit, is counted first. */
const USUAL_CHARACTERS = 8;
/** A slice may have so many tokens more than its text has inside the whole: where it was cut. */
const CUT_TOKENS = 8;

export interface PromptOptions {
  /** false: without the tokens that begin a text. */
  bos: boolean;
  /** Tokens of prompt and answer together at most, or Infinity. */
  limit: number;
}

/** @throws ApiError 400 if the text certainly has more tokens than fit */
async function refuseTooLong(
  { engine }: ServerContext,
  text: string,
  limit: number,
): Promise<void> {
  if (text.length <= limit * USUAL_CHARACTERS) return;
  let tokens = 0;
  for (let at = 0; at < text.length; at += SLICE) {
    const slice = wellFormed(text.slice(at, at + SLICE));
    const ids = await engine.encode(slice, { bos: false });
    tokens += Math.max(ids.length - CUT_TOKENS, 0);
    if (tokens >= limit) throw contextExceeded(limit, `more than ${tokens}`);
  }
}

/** @throws ApiError 400, GqaError NO_TOKENIZER */
export async function promptIds(
  context: ServerContext,
  text: string,
  { bos, limit }: PromptOptions,
): Promise<number[]> {
  await refuseTooLong(context, text, limit);
  return context.engine.encode(wellFormed(text), { bos });
}

/** Token ids that a client gives instead of text. @throws ApiError 400 */
export function checkedIds({ engine }: ServerContext, ids: readonly number[]): readonly number[] {
  const { vocabSize } = engine.model.config;
  const unknown = ids.find((id) => id >= vocabSize);
  if (unknown === undefined) return ids;
  const message = `${unknown} is no token id of this model, which has ${vocabSize}.`;
  throw new ApiError(400, message, { param: 'prompt', code: 'invalid_value' });
}
