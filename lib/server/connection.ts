/** What is wrong with bytes before they are a request: answered on the socket itself, which is then closed. */
import { STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import type { FastifyInstance } from 'fastify';
import { ApiError } from './errors';

function problemOf({ code }: NodeJS.ErrnoException): ApiError {
  switch (code) {
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return new ApiError(408, 'The request did not arrive in time.', { code: 'request_timeout' });
    case 'HPE_HEADER_OVERFLOW':
      return new ApiError(431, 'The headers are too large.', { code: 'headers_too_large' });
    case 'HPE_CHUNK_EXTENSIONS_OVERFLOW':
      return new ApiError(413, 'The chunk extensions are too large.', { code: 'body_too_large' });
    default:
      return new ApiError(400, 'The request is not well-formed HTTP.', { code: 'invalid_http' });
  }
}

/** Fastify's clientErrorHandler. */
export function onClientError(
  this: FastifyInstance,
  error: NodeJS.ErrnoException,
  socket: Socket,
): void {
  this.log.debug({ code: error.code }, 'malformed request');
  // Bytes of an answer may be on their way: nothing can be said between them.
  if (error.code === 'ECONNRESET' || socket.destroyed || !socket.writable || socket.bytesWritten) {
    socket.destroy(error);
    return;
  }
  const { status, body } = problemOf(error);
  const text = JSON.stringify(body);
  const head = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
    'Content-Type: application/json; charset=utf-8',
    `Content-Length: ${Buffer.byteLength(text)}`,
    'Connection: close',
  ];
  // destroySoon would wait for a client that does not close its side.
  socket.end(`${head.join('\r\n')}\r\n\r\n${text}`, () => socket.destroy());
}
