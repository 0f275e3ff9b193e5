/** The thread that turns long texts into token ids; see encoder.ts. */
import { parentPort, workerData } from 'node:worker_threads';
import { openCheckpoint } from '../model/checkpoint';
import type { Tokenizer } from '../model/tokenizer';
import { packError } from '../model/worker-protocol';
import type { EncodeReply, EncodeRequest } from './encoder';

if (parentPort === null) throw new Error('This module runs in a worker thread only');
const port = parentPort;

function open(): Tokenizer {
  const checkpoint = openCheckpoint((workerData as { path: string }).path);
  try {
    return checkpoint.tokenizer();
  } finally {
    checkpoint.weights.close();
  }
}

function answer(tokenizer: Tokenizer, { id, text, options }: EncodeRequest): EncodeReply {
  try {
    return { id, ids: Int32Array.from(tokenizer.encode(text, options)) };
  } catch (error) {
    return { id, error: packError(error) };
  }
}

const tokenizer = open();
port.on('message', (request: EncodeRequest) => port.postMessage(answer(tokenizer, request)));
