/** Options and requests that an engine must refuse. */
import {
  Engine,
  type EngineOptions,
  type EngineRequest,
  type EngineRun,
  type GqaErrorCode,
} from '../../lib';
import { request, sampling } from '../support/engine';
import { embeddedModel } from '../support/package';
import type { Row } from './rows';

const OPTIONS: [GqaErrorCode, string, unknown][] = [
  ['OUT_OF_RANGE', 'contextLength', 513],
  ['OUT_OF_RANGE', 'maxSequences', 0],
  ['OUT_OF_RANGE', 'budgetTokens', 63],
  ['OUT_OF_RANGE', 'stepTokens', 15],
  ['INVALID_ARGUMENT', 'maxQueue', '1'],
  ['INVALID_ARGUMENT', 'name', ''],
  ['INVALID_ARGUMENT', 'store', 'redis://localhost'],
  ['INVALID_ARGUMENT', 'store.url', { url: '' }],
  ['OUT_OF_RANGE', 'store.ttlSeconds', { url: 'redis://localhost', ttlSeconds: 0 }],
  ['INVALID_ARGUMENT', 'speculation', true],
  ['INVALID_ARGUMENT', 'speculation.lookup', { lookup: 3 }],
  ['OUT_OF_RANGE', 'speculation.lookup.ngram', { lookup: { ngram: 0 } }],
  ['OUT_OF_RANGE', 'speculation.draftTokens', { draftTokens: 0 }],
  ['INVALID_ARGUMENT', 'speculation.draftModel', { draftModel: 1 }],
];

const REQUESTS: [GqaErrorCode, string, Partial<Record<keyof EngineRequest, unknown>>][] = [
  ['EMPTY_PROMPT', 'prompt', { prompt: [] }],
  ['INVALID_ARGUMENT', 'prompt', { prompt: 'a text' }],
  ['OUT_OF_RANGE', 'prompt[1]', { prompt: [1, 2048] }],
  ['CONTEXT_EXCEEDED', 'prompt', { prompt: new Array(21).fill(5) }],
  ['OUT_OF_RANGE', 'maxTokens', { maxTokens: -1 }],
  ['INVALID_ARGUMENT', 'stop', { stop: 'text' }],
  ['INVALID_ARGUMENT', 'stop[1]', { stop: ['a', ''] }],
  ['OUT_OF_RANGE', 'logprobs', { logprobs: 21 }],
  ['NON_FINITE', 'priority', { priority: NaN }],
  ['INVALID_ARGUMENT', 'user', { user: 7 }],
  ['INVALID_ARGUMENT', 'signal', { signal: {} }],
  ['INVALID_ARGUMENT', 'ignoreEos', { ignoreEos: 'yes' }],
  ['INVALID_ARGUMENT', 'sampling', { sampling: 0 }],
  ['OUT_OF_RANGE', 'sampling.temperature', { sampling: sampling({ temperature: -1 }) }],
  ['OUT_OF_RANGE', 'sampling.topP', { sampling: sampling({ topP: 1.5 }) }],
  ['NON_FINITE', 'sampling.frequencyPenalty', { sampling: sampling({ frequencyPenalty: NaN }) }],
  ['NON_FINITE', 'sampling.logitBias[7]', { sampling: sampling({ logitBias: { 7: Infinity } }) }],
];

/** `engine` has a context of 20 tokens, runs one request and lets none wait. */
export function engineRows(engine: () => Engine): Row[] {
  const drained = async (use: (engine: Engine) => unknown): Promise<void> => {
    const other = await Engine.start(embeddedModel);
    try {
      await other.drain();
      await use(other);
    } finally {
      await other.dispose();
    }
  };
  const leave = async (run: EngineRun): Promise<unknown> => {
    for await (const piece of run) if (piece.tokens.length > 0) break;
    return run.result;
  };
  return [
    ...OPTIONS.map(([code, name, value]): Row => {
      const options = { [name.split('.')[0]]: value } as EngineOptions;
      return [code, `options.${name}`, 'an engine', () => Engine.start(embeddedModel, options)];
    }),
    ...REQUESTS.map(([code, name, changes]): Row => [
      code,
      `request.${name}`,
      'a request',
      () => engine().submit(request(changes as Partial<EngineRequest>)),
    ]),
    ['CANCELLED', 'run', 'an answer left', () => leave(engine().submit(request()))],
    [
      'QUEUE_FULL',
      'request',
      'one request too many',
      async () => {
        const first = engine().submit(request());
        try {
          engine().submit(request());
        } finally {
          await leave(first).catch(() => undefined);
        }
      },
    ],
    [
      'DISPOSED',
      'engine',
      'a request to an engine that drains',
      () => drained((other) => other.submit(request())),
    ],
  ];
}
