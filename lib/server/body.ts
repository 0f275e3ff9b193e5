/** Bodies: JSON in UTF-8, whole and well-formed, or refused. */
import type { FastifyInstance } from 'fastify';
import { ApiError } from './errors';

const decoder = new TextDecoder('utf-8', { fatal: true });

/** @throws ApiError 400 */
function parseBody(bytes: Buffer): unknown {
  if (bytes.length === 0) throw new ApiError(400, 'The body is empty.', { code: 'invalid_json' });
  let text: string;
  try {
    text = decoder.decode(bytes);
  } catch {
    throw new ApiError(400, 'The body is not valid UTF-8.', { code: 'invalid_utf8' });
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    // V8 quotes the text, which is the client's own, and may be long.
    const reason = (error as Error).message.slice(0, 200);
    throw new ApiError(400, `The body is not valid JSON: ${reason}`, { code: 'invalid_json' });
  }
}

export function addBodyParser(app: FastifyInstance): void {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser<Buffer>(
    'application/json',
    { parseAs: 'buffer' },
    (_request, body, done) => {
      try {
        done(null, parseBody(body));
      } catch (error) {
        done(error as Error);
      }
    },
  );
}

/** Half of a surrogate pair, which JSON can spell with an escape, is no character. */
const LONE_SURROGATE = /[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/g;

/** The text as UTF-8 can hold it. */
export function wellFormed(text: string): string {
  return text.replace(LONE_SURROGATE, '\uFFFD');
}
