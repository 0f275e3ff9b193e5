/** Chat messages to a prompt, through the model's own Jinja template. */
import { expectedError, GqaError } from '../core/errors';
import { describe } from '../core/validate';
import { isObject } from './json-fields';
import { newTemplate } from './text-libraries';

export interface ChatMessage {
  /** 'system', 'user', 'assistant', or what else the template knows. */
  role: string;
  content: string;
}

/** @throws GqaError INVALID_ARGUMENT unless messages is a list of { role, content }. */
export function checkMessages(messages: unknown): asserts messages is ChatMessage[] {
  if (!Array.isArray(messages)) {
    throw expectedError('INVALID_ARGUMENT', 'messages', 'an array', describe(messages));
  }
  messages.forEach((message: unknown, i) => {
    const { role, content } = isObject(message) ? message : {};
    if (typeof role !== 'string' || typeof content !== 'string') {
      const expected = '{ role: string, content: string }';
      throw expectedError('INVALID_ARGUMENT', `messages[${i}]`, expected, describe(message));
    }
  });
}

/** The prompt up to where the assistant's answer begins. @throws GqaError INVALID_ARGUMENT */
export function renderChat(
  template: string | null,
  messages: readonly ChatMessage[],
  names: Readonly<Record<string, string>>,
): string {
  checkMessages(messages);
  if (template === null) {
    const expected = 'a string or token ids (this model has no chat template)';
    throw expectedError('INVALID_ARGUMENT', 'prompt', expected, 'chat messages');
  }
  try {
    return newTemplate(template).render({ ...names, messages, add_generation_prompt: true });
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new GqaError('INVALID_ARGUMENT', `The chat template refuses the messages: ${reason}`, {
      argument: 'messages',
      expected: 'messages that the chat template takes',
      received: describe(messages),
      cause,
    });
  }
}
