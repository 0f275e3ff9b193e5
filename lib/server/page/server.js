// What the page asks of the server.
import { readEvents } from './events.js';

/** The server's own words, where it has any. */
export class ServerError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function request(path, key, init = {}) {
  const headers = { ...init.headers };
  if (key !== '') headers.authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, { ...init, headers });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new ServerError(0, 'The server cannot be reached.');
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  const message = body.error?.message ?? `The server answered ${response.status}.`;
  throw new ServerError(response.status, message);
}

/** Model, engine and cache, as GET /stats tells them. */
export async function stats(key) {
  return (await request('/stats', key)).json();
}

/**
 * The pieces of an answer as they come: { text }, then { usage, finishReason }.
 * Models without a chat template go on from the last message. maxTokens null: as many as fit.
 */
export async function* answer({ model, chat, messages, temperature, maxTokens, key, signal }) {
  const body = {
    model,
    temperature,
    stream: true,
    stream_options: { include_usage: true },
    ...(maxTokens === null ? {} : { max_tokens: maxTokens }),
    ...(chat ? { messages } : { prompt: messages.at(-1).content }),
  };
  const response = await request(chat ? '/v1/chat/completions' : '/v1/completions', key, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    signal,
  });
  let finishReason = null;
  for await (const data of readEvents(response.body)) {
    if (data === '[DONE]') return;
    const event = JSON.parse(data);
    if (event.error) throw new ServerError(500, event.error.message);
    const [choice] = event.choices;
    finishReason = choice?.finish_reason ?? finishReason;
    const text = choice?.delta?.content ?? choice?.text ?? '';
    if (text !== '') yield { text };
    if (event.usage) yield { usage: event.usage, finishReason };
  }
}
