/** Random programs over a KvCache against attention over all tokens ever appended; `npm run fuzz:cache` runs many more. */
import { samples } from '../support/samples';
import { checkPrograms, runProgram, type Command, type Plan } from './programs';

test('random programs', () => checkPrograms(samples(800), 20261));

const PLAN: Plan = {
  layers: [{}],
  kvHeads: 1,
  headDim: 4,
  valueDim: undefined,
  dtype: { k: 'f32', v: 'f32' },
  rotate: undefined,
  recent: 0,
  window: 3,
  sinkTokens: 0,
  slack: 0,
  room: 0,
  sequences: 2,
  prefixTokens: 0,
  positions: 'absolute',
  given: 'f32',
};

/** Token by token past several wraps, with rollbacks as far as the slack goes and further. */
function everyLength(room: number, most: number): Command[] {
  const program: Command[] = [];
  const append = (tokens: number): void => {
    program.push({ kind: 'append', who: 0, tokens, text: 0 });
  };
  for (let length = 1; length <= most; length++) {
    append(1);
    for (const queries of [1, room + 1, room + 2]) {
      program.push({ kind: 'attend', who: 0, layer: 0, queries, options: {} });
    }
    if (length % 10 > 0) continue;
    for (const back of [room + 1, room]) program.push({ kind: 'truncate', who: 0, back });
    append(room);
  }
  return program;
}

test.each([
  [3, 0, 0, 'f32'],
  [3, 2, 1, 'f32'],
  [16, 1, 0, 'f32'],
  [40, 30, 10, 'f32'],
  [3, 2, 1, 'q8'],
  [40, 30, 80, 'q4'],
] as const)(
  'every length, step by step, around the edges of blocks and ring: window %i, %i sinks, slack %i, %s',
  (window, sinkTokens, slack, dtype) => {
    const plan = { ...PLAN, window, sinkTokens, slack, dtype: { k: dtype, v: dtype } };
    runProgram(plan, everyLength(slack, samples(230)));
  },
);

test('a fork taken before a tree of drafts is pruned keeps all of it', () => {
  for (const dtype of ['f32', 'q8'] as const) {
    const part = { who: 0, tokens: 5, text: 0, tree: [0, 0, 1, 1, 2] };
    runProgram({ ...PLAN, window: undefined, room: 100, dtype: { k: dtype, v: dtype } }, [
      { kind: 'append', who: 0, tokens: 62, text: 0 },
      { kind: 'step', parts: [part], cascade: true, kept: 5, fork: true },
      { kind: 'attend', who: 0, layer: 0, queries: 3, options: {} },
      { kind: 'attend', who: 1, layer: 0, queries: 3, options: {} },
    ]);
  }
});
