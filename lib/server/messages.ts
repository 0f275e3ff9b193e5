/** Messages of OpenAI's API to those that chat templates know. */
import type { ChatMessage } from '../model/chat-template';
import { invalid } from './errors';
import type { Schema } from './schemas';

export interface MessageBody {
  role: string;
  content?: string | { type: 'text'; text: string }[] | null;
  tool_calls?: unknown[] | null;
  function_call?: unknown;
}

const PARTS: Schema = {
  title: 'a string, or a list of parts { type: "text", text }',
  anyOf: [
    { type: 'string' },
    { type: 'null' },
    {
      type: 'array',
      minItems: 1,
      items: {
        type: 'object',
        required: ['type', 'text'],
        properties: { type: { const: 'text' }, text: { type: 'string' } },
      },
    },
  ],
};

export const MESSAGES: Schema = {
  type: 'array',
  minItems: 1,
  items: {
    type: 'object',
    required: ['role'],
    properties: {
      role: { type: 'string', enum: ['system', 'developer', 'user', 'assistant', 'tool'] },
      content: PARTS,
      name: { type: ['string', 'null'] },
    },
  },
};

function textOf({ role, content }: MessageBody, at: string): string {
  if (typeof content === 'string') return content;
  if (Array.isArray(content)) return content.map(({ text }) => text).join('\n');
  // An assistant may have said nothing; everybody else must.
  if (role === 'assistant') return '';
  throw invalid(`${at}.content`, `Missing content: messages of role '${role}' need a text.`);
}

/** @throws ApiError 400 */
export function chatMessages(messages: readonly MessageBody[]): ChatMessage[] {
  return messages.map((message, i) => {
    const at = `messages[${i}]`;
    if ((message.tool_calls?.length ?? 0) > 0 || (message.function_call ?? null) !== null) {
      const field = `${at}.tool_calls`;
      throw invalid(field, 'This server does not support tools.', 'unsupported_parameter');
    }
    // OpenAI's newer name of the same.
    const role = message.role === 'developer' ? 'system' : message.role;
    return { role, content: textOf(message, at) };
  });
}
