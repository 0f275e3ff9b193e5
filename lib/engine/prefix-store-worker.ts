/** The thread that talks to a store of prefixes; see prefix-store.ts. */
import { parentPort, workerData } from 'node:worker_threads';
import { PrefixService } from './prefix-service';
import type { StoreReply, StoreRequest, StoreSetup } from './prefix-store';
import { StoreConnection } from './store-connection';

if (parentPort === null) throw new Error('This module runs in a worker thread only');
const port = parentPort;
const setup = workerData as StoreSetup;

/** Milliseconds that dispose() gives the last writes. */
const LAST_WRITES = 2000;

const connection = new StoreConnection(setup, () => send({ type: 'changed' }));
const service = new PrefixService(connection, setup);
let lastWrite: Promise<void> = Promise.resolve();

type Unreported<R> = R extends StoreReply ? Omit<R, 'stats'> : never;

function send(reply: Unreported<StoreReply>, transfer: ArrayBuffer[] = []): void {
  const stats = { connected: connection.isConnected, ...service.counts };
  port.postMessage({ ...reply, stats }, transfer);
}

async function find(id: number, tokens: Float64Array, fromBlock: number): Promise<void> {
  const found = await service.find(tokens, fromBlock);
  // Copies: a client may have cut several values from one piece of memory.
  const blocks = found.map((bytes) => new Uint8Array(bytes));
  send(
    { type: 'found', id, blocks },
    blocks.map(({ buffer }) => buffer),
  );
}

async function put({ tokens, firstBlock, blocks, bytes }: StoreRequest & { type: 'put' }) {
  await service.put(tokens, firstBlock, blocks);
  send({ type: 'written', bytes });
}

async function end(): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise((resolve) => {
    timer = setTimeout(resolve, LAST_WRITES);
  });
  await Promise.race([lastWrite, late]);
  clearTimeout(timer);
  connection.dispose();
  send({ type: 'ended' });
  port.close();
}

port.on('message', (request: StoreRequest) => {
  if (request.type === 'find') void find(request.id, request.tokens, request.fromBlock);
  else if (request.type === 'put') lastWrite = put(request);
  else void end();
});
