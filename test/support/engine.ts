/** Requests to an engine, and their answers read whole. */
import type { EngineRequest, EngineResult, EngineRun, GeneratedToken } from '../../lib';

export function request(changes: Partial<EngineRequest> = {}): EngineRequest {
  return { prompt: [1], maxTokens: 16, sampling: sampling(), stop: [], logprobs: -1, ...changes };
}

export function sampling(
  changes: Partial<EngineRequest['sampling']> = {},
): EngineRequest['sampling'] {
  return {
    temperature: 0,
    topK: 0,
    topP: 1,
    minP: 0,
    repetitionPenalty: 1,
    frequencyPenalty: 0,
    presencePenalty: 0,
    seed: 0,
    ...changes,
  };
}

export interface Answer {
  ids: number[];
  tokens: GeneratedToken[];
  texts: string[];
  result: EngineResult;
}

export async function readAll(run: EngineRun): Promise<Answer> {
  const tokens: GeneratedToken[] = [];
  const texts: string[] = [];
  for await (const piece of run) {
    tokens.push(...piece.tokens);
    texts.push(piece.text);
  }
  return { ids: tokens.map(({ id }) => id), tokens, texts, result: await run.result };
}
