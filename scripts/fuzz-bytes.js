'use strict';
// fuzz-bytes.js URL ROUNDS [SEED]: damaged requests over sockets: bits flipped, bytes cut, doubled and inserted, connections
// closed anywhere. The server must answer each with a status below 500 (501 and 503 are declared), or not at all, and answer
// a sound request between them.
const { Buffer } = require('node:buffer');
const { connect } = require('node:net');
const { setTimeout } = require('node:timers');
const { URL } = require('node:url');

const [url, rounds = '1000', seed = '1'] = process.argv.slice(2);
const { hostname, port } = new URL(url);

/** mulberry32 */
let state = Number(seed);
function random() {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
}
const pick = (most) => Math.floor(random() * most);

const MODEL = 'stories';
const BODIES = [
  { model: MODEL, prompt: 'Once', max_tokens: 2 },
  { model: MODEL, prompt: [5, 6, 7], max_tokens: 2, stream: true, logprobs: 2, stop: ['a'] },
  { model: MODEL, messages: [{ role: 'user', content: 'Hi' }], max_tokens: 2 },
  { prompt: 'One day', tokens: [1, 2, 3] },
];
const PATHS = ['/v1/completions', '/v1/chat/completions', '/tokenize', '/detokenize', '/v1/models'];

function sound(body, path) {
  const text = JSON.stringify(body);
  const head = `POST ${path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n`;
  if (pick(4) === 0) {
    const chunk = `${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n0\r\n\r\n`;
    return Buffer.from(`${head}transfer-encoding: chunked\r\n\r\n${chunk}`);
  }
  return Buffer.from(`${head}content-length: ${Buffer.byteLength(text)}\r\n\r\n${text}`);
}

const DAMAGES = [
  (bytes) => {
    for (let i = 0; i <= pick(8); i++) bytes[pick(bytes.length)] ^= 1 << pick(8);
    return bytes;
  },
  (bytes) => bytes.subarray(0, pick(bytes.length)),
  (bytes) => {
    const at = pick(bytes.length);
    const noise = Buffer.from(Array.from({ length: 1 + pick(40) }, () => pick(256)));
    return Buffer.concat([bytes.subarray(0, at), noise, bytes.subarray(at)]);
  },
  (bytes) => Buffer.concat([bytes, bytes.subarray(pick(bytes.length))]),
  (bytes) => Buffer.from(bytes.map((byte) => (pick(30) === 0 ? pick(256) : byte))),
];

/** What came back until the server closed, or 300 ms had passed without anything. */
function exchange(bytes) {
  return new Promise((resolve) => {
    const socket = connect(Number(port), hostname);
    let text = '';
    socket.setTimeout(300, () => socket.destroy());
    socket.on('data', (chunk) => (text += chunk.toString('latin1')));
    socket.on('error', () => undefined);
    socket.on('close', () => resolve(text));
    if (pick(3) === 0) socket.end(bytes);
    else socket.write(bytes);
    if (pick(8) === 0) setTimeout(() => socket.resetAndDestroy(), pick(20));
  });
}

async function round(statuses) {
  const bytes = sound(BODIES[pick(BODIES.length)], PATHS[pick(PATHS.length)]);
  const text = await exchange(DAMAGES[pick(DAMAGES.length)](bytes));
  for (const [, status] of text.matchAll(/^HTTP\/1\.1 (\d+) /gm)) {
    statuses[status] = (statuses[status] ?? 0) + 1;
    if (Number(status) >= 500 && status !== '501' && status !== '503') {
      throw new Error(`status ${status} for ${JSON.stringify(bytes.toString('latin1'))}: ${text}`);
    }
  }
}

async function main() {
  const statuses = {};
  let left = Number(rounds);
  const lane = async () => {
    while (left-- > 0) await round(statuses);
  };
  await Promise.all(Array.from({ length: 16 }, lane));
  const answer = await exchange(sound({ tokens: [300] }, '/detokenize'));
  if (!answer.startsWith('HTTP/1.1 200')) throw new Error(`no answer in the end: ${answer}`);
  console.log(`${rounds} damaged requests, statuses ${JSON.stringify(statuses)}`);
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
