/** The parts of bench:peers that need no peer: bars, the protocol, layouts, rows of the reports, quotients of runs. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { caseRows } from '../../../bench/peers/attention-report';
import { workOf, type CaseResult, type Standing } from '../../../bench/peers/attention-run';
import { headsFirst, timeCalls } from '../../../bench/peers/attention-task';
import { barOf, modelBar } from '../../../bench/peers/bars';
import { ratiosOf, resultsOf } from '../../../bench/peers/model-run';
import { timeTokens } from '../../../bench/peers/model-task';
import {
  cpuTimes,
  otherShare,
  processMilliseconds,
  verdict,
} from '../../../bench/peers/other-load';
import { Contender } from '../../../bench/peers/protocol';
import { compiledRoot } from '../../support/child';

test('bars by dtype and machine', () => {
  const ratios = (amx: boolean) =>
    (['f32', 'f16', 'q8', 'q4'] as const).map(
      (dtype) => barOf({ op: 'decode', dtype }, amx)?.ratio,
    );
  expect(ratios(false)).toEqual([2.5, 2.5, 6, 6]);
  expect(ratios(true)).toEqual([1.7, 2.5, 6, 6]);
  expect(barOf({ op: 'prefill', dtype: 'bf16' }, false)).toEqual({
    against: 'pytorch',
    ratio: 1.7,
  });
  expect(barOf({ op: 'prefill', dtype: 'f32' }, true)).toBeNull();
  expect(modelBar('x.Q4_1.gguf', 'prompt')).toBe(2);
  expect(modelBar('x.Q8_0.gguf', 'prompt')).toBe(1.3);
});

test('tokens first to heads first', () => {
  // 2 tokens, 3 heads, 2 dims.
  const data = Float32Array.from({ length: 12 }, (_, i) => i);
  expect([...headsFirst(data, 2, 3)]).toEqual([0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11]);
});

test('calls go on through the copies from slice to slice', async () => {
  const seen: number[] = [];
  for (let slice = 0; slice < 4; slice++) await timeCalls(0, 3, (copy) => seen.push(copy));
  expect(seen.map((copy) => (copy - seen[0] + 3) % 3)).toEqual([0, 1, 2, 0]);
});

describe('a contender', () => {
  const folder = mkdtempSync(join(tmpdir(), 'gqa-contender-'));
  const script = join(folder, 'worker.js');
  writeFileSync(
    script,
    `const { serve } = require(${JSON.stringify(resolve(compiledRoot, 'bench/peers/protocol.js'))});
     serve({
       double: (x) => (console.log('noise'), 2 * x),
       slow: async () => (await new Promise((r) => setTimeout(r, 20)), 'done'),
       fail: () => { throw new Error('no'); },
       leave: () => process.exit(3),
     });`,
  );
  const start = () => new Contender('worker', [process.execPath, script]);
  afterAll(() => rmSync(folder, { recursive: true }));

  test('answers, and says what failed', async () => {
    const contender = start();
    expect(await contender.ask('double', 21)).toBe(42);
    expect(await contender.ask('slow')).toBe('done');
    await expect(contender.ask('fail')).rejects.toThrow('worker: Error: no');
    expect(await contender.ask('double', 1)).toBe(2);
    await contender.stop();
    await expect(contender.ask('double', 1)).rejects.toThrow('worker ended');
  });

  test('that dies fails the question, and each after it', async () => {
    const contender = start();
    await expect(contender.ask('leave')).rejects.toThrow('worker ended');
    await expect(contender.ask('double', 1)).rejects.toThrow('worker ended');
    await contender.stop();
  });

  test('that cannot be started fails the question', async () => {
    const contender = new Contender('nobody', [join(folder, 'not-there')]);
    await expect(contender.ask('double', 1)).rejects.toThrow(/nobody/);
    await contender.stop();
  });
});

function standing(name: string, peer: string, ratio: number | null): Standing {
  const one = (median: number) => ({ median, p10: median, p90: median, samples: 1 });
  return {
    ...{ name, peer, error: 1e-7, roofline: 0.5, failure: ratio === null ? 'ended' : null },
    microseconds: ratio === null ? null : one(100 * ratio),
    ratios: ratio === null ? [] : [ratio, ratio * 0.9, ratio * 1.1],
  };
}

test('ours stands against the best peer that counts', () => {
  const result: CaseResult = {
    theCase: {
      op: 'prefill',
      shape: { heads: 4, kvHeads: 2, headDim: 8 },
      context: 16,
      dtype: 'bf16',
      threads: 2,
    },
    others: 0.01,
    limits: { read: 1e10, fma: 1e11, bf16: 0, int8: 0, tiles: 0 },
    standings: [
      standing('gqa', 'gqa', 1),
      standing('pytorch gqa', 'pytorch', 3),
      standing('pytorch folded', 'pytorch', 2),
      standing('other', 'other', 1.5),
      standing('broken', 'broken', null),
    ],
  };
  const [ours, ...peers] = caseRows(result, { against: 'pytorch', ratio: 1.7 });
  expect(ours).toMatchObject({ contender: 'gqa', ratio: 2, bar: 1.7, met: 'yes' });
  expect(peers.map(({ ratio, bar, met }) => [ratio, bar, met])).toEqual([
    [3, null, null],
    [2, null, null],
    [1.5, null, null],
    [null, null, null],
  ]);
  expect(caseRows(result, { against: null, ratio: 1.7 })[0]).toMatchObject({
    ratio: 1.5,
    met: 'NO',
  });
  expect(caseRows(result, null)[0]).toMatchObject({ ratio: 1.5, bar: null, met: null });
  const busy = { ...result, others: 0.3 };
  expect(caseRows(busy, { against: null, ratio: 1.2 })[0]).toMatchObject({
    met: 'busy',
    others: 0.3,
  });
  expect(workOf(result.theCase).flop).toBe(4 * 4 * 8 * ((16 * 17) / 2));
});

describe('the load of others', () => {
  const times = (busy: number, idle: number, own: number) => ({ busy, idle, own });

  test('is what is busy and not ours', () => {
    expect(otherShare(times(10, 10, 5), times(110, 60, 75))).toBeCloseTo(30 / 150, 12);
    // Ticks are coarse: ours may seem more than all.
    expect(otherShare(times(0, 0, 0), times(10, 10, 20))).toBe(0);
    expect(otherShare(null, times(1, 1, 1))).toBeNull();
    expect(otherShare(times(1, 1, 1), times(1, 1, 1))).toBeNull();
  });

  test('ticks of a process whose name holds brackets and spaces', () => {
    const stat = '12 (a) b (c)) S 1 12 12 0 -1 4194304 100 0 0 0 250 50 9 9 20 0 7 0 100 1000 10';
    expect(processMilliseconds(stat)).toBe(3000);
  });

  test('leaves no verdict', () => {
    expect([verdict(2, 1, 0), verdict(1, 2, null), verdict(2, 1, 0.2)]).toEqual([
      'yes',
      'NO',
      'busy',
    ]);
  });

  test('of a process that is gone is unknown', () => {
    expect(cpuTimes([2 ** 30])).toBeNull();
  });
});

test('tokens are timed from the call; no more are taken than asked for', async () => {
  let made = 0;
  async function* tokens() {
    for (;;) {
      await new Promise((wake) => setTimeout(wake, 5));
      yield ++made;
    }
  }
  const times = await timeTokens(tokens(), 3);
  expect(times.ids).toEqual([1, 2, 3]);
  expect(made).toBe(3);
  expect(times.firstTokenMilliseconds).toBeGreaterThan(0);
  expect(times.tokenMilliseconds).toBeGreaterThan(0);
  expect((await timeTokens(tokens(), 1)).tokenMilliseconds).toBeNull();
});

test('quotients of runs side by side, missing ones left out', () => {
  expect(ratiosOf([4, 6, NaN], [2, NaN, 1])).toMatchObject({ median: 2, samples: 1 });
  expect(ratiosOf([NaN], [1])).toBeNull();
  const times = (value: number) => ({
    ...{ prompt: [value, value], generation: [value], longGeneration: [], firstToken: [] },
  });
  const names = ['gqa fast', 'gqa exact', 'node-llama-cpp'];
  const results = resultsOf(names, [times(1), times(2), times(6)], ['prompt']);
  expect(results.map(({ ratios }) => ratios.prompt?.median)).toEqual([6, 3, undefined]);
  expect(results[2].times.prompt?.median).toBe(6);
  expect(results[0].times.generation).toBeUndefined();
});
