/** Log probabilities in the forms of the two endpoints. */
import type { GeneratedToken, TokenAlternative } from '../engine/types';

/** JSON has no -Infinity; what OpenAI's API gives for the impossible. */
const IMPOSSIBLE = -9999;

function finite(logprob: number): number {
  return Number.isFinite(logprob) ? logprob : IMPOSSIBLE;
}

function chatToken({ text, logprob, bytes }: TokenAlternative) {
  return { token: text, logprob: finite(logprob), bytes: [...bytes] };
}

/** Of /v1/chat/completions. */
export function chatLogprobs(tokens: readonly GeneratedToken[]): object {
  return {
    content: tokens.map((token) => ({
      ...chatToken(token),
      top_logprobs: token.top.map(chatToken),
    })),
    refusal: null,
  };
}

/** Of /v1/completions; `offset`: characters of the text before the first token. */
export function textLogprobs(tokens: readonly GeneratedToken[], offset: number): object {
  let at = offset;
  const offsets = tokens.map(({ text }) => {
    const begin = at;
    at += text.length;
    return begin;
  });
  return {
    tokens: tokens.map(({ text }) => text),
    token_logprobs: tokens.map(({ logprob }) => finite(logprob)),
    top_logprobs: tokens.map(({ top }) =>
      Object.fromEntries(top.map(({ text, logprob }) => [text, finite(logprob)])),
    ),
    text_offset: offsets,
  };
}

export function textLength(tokens: readonly GeneratedToken[]): number {
  return tokens.reduce((total, { text }) => total + text.length, 0);
}
