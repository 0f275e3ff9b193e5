// Server-sent events out of a response's bytes: the data of each event, lines joined.

/** @param {ReadableStream<Uint8Array>} body */
export async function* readEvents(body) {
  const decoder = new TextDecoder();
  let held = '';
  for await (const bytes of chunks(body)) {
    held += decoder.decode(bytes, { stream: true });
    const events = held.split(/\r?\n\r?\n/);
    held = events.pop();
    for (const event of events) {
      const data = event
        .split(/\r?\n/)
        .filter((line) => line.startsWith('data:'))
        .map((line) => line.slice(5).replace(/^ /, ''));
      if (data.length > 0) yield data.join('\n');
    }
  }
}

/** Streams can be iterated in some browsers only. */
async function* chunks(body) {
  const reader = body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => undefined);
  }
}
