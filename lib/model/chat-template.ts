/** Chat messages to a prompt, through the model's own Jinja template. */
import { expectedError, GqaError } from '../core/errors';
import { describe } from '../core/validate';
import { isObject } from './json-fields';
import { strftime } from './strftime';
import { newTemplate, type LibraryTemplate } from './text-libraries';

export interface ChatMessage {
  /** 'system', 'user', 'assistant', or what else the template knows. */
  role: string;
  content: string;
}

/** Blocks by which transformers finds what the assistant said: they render what stands in them. */
const GENERATION_TAG = /\{%(-?|\+?)\s*(end)?generation\s*(-?|\+?)%\}/g;

/** The library's own strftime_now speaks the language of the process and knows fewer directives; a name is set once. */
const LOCAL_TIME = 'strftime_in_english';
const LOCAL_TIME_CALL = /\bstrftime_now(?=\s*\()/g;

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

/** A template, read when it is first used. */
export class ChatTemplate {
  private compiled: LibraryTemplate | null = null;

  /**
   * @param source what it belongs to, for messages
   * @param names of special tokens and their texts
   */
  constructor(
    private readonly source: string,
    private readonly text: string,
    private readonly names: Readonly<Record<string, string>>,
  ) {}

  /**
   * The prompt up to where the assistant's answer begins.
   * @throws GqaError INVALID_ARGUMENT where messages are none or the template refuses them, INVALID_FILE where it cannot be
   *   read
   */
  render(messages: readonly ChatMessage[]): string {
    checkMessages(messages);
    this.compiled ??= compile(this.source, this.text);
    // Null, not missing, as in transformers: templates ask whether tools are none.
    const nothing = { tools: null, documents: null };
    try {
      return this.compiled.render({
        ...this.names,
        ...nothing,
        messages: messages.map(({ role, content }) => ({ role, content })),
        add_generation_prompt: true,
        [LOCAL_TIME]: (format: unknown) => strftime(new Date(), String(format)),
      });
    } catch (cause) {
      const reason = reasonOf(cause);
      throw new GqaError('INVALID_ARGUMENT', `The chat template refuses the messages: ${reason}`, {
        argument: 'messages',
        expected: 'messages that the chat template takes',
        received: describe(messages),
        cause,
      });
    }
  }
}

/** @throws GqaError INVALID_ARGUMENT */
export function refuseWithoutTemplate(): never {
  const expected = 'a string or token ids (this model has no chat template)';
  throw expectedError('INVALID_ARGUMENT', 'prompt', expected, 'chat messages');
}

function compile(source: string, text: string): LibraryTemplate {
  const plain = text.replace(GENERATION_TAG, (_, before: string, end: string | undefined, after) =>
    end === undefined ? `{%${before} if true ${after}%}` : `{%${before} endif ${after}%}`,
  );
  try {
    return newTemplate(plain.replace(LOCAL_TIME_CALL, LOCAL_TIME));
  } catch (cause) {
    const message = `${source}: the chat template cannot be read: ${reasonOf(cause)}`;
    const expected = 'a Jinja template';
    throw new GqaError('INVALID_FILE', message, { argument: source, expected, cause });
  }
}

function reasonOf(cause: unknown): string {
  return (cause instanceof Error ? cause.message : String(cause)).slice(0, 500);
}
