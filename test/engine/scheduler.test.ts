/** The scheduler over a cache of blocks that only counts. */
import fc from 'fast-check';
import { Scheduler, type Entry, type Memory, type Task } from '../../lib/engine/scheduler';

const BLOCK = 64;

class FakeTask implements Task {
  held = 0;
  produced = 0;
  laggingSince: number | null = null;
  readonly longestChunk = 200;

  constructor(
    readonly name: number,
    readonly prompt: number,
    readonly answer: number,
    readonly user: string | undefined = undefined,
    readonly priority = 0,
  ) {}

  get pending(): number {
    return this.prompt + this.produced - this.held;
  }

  get left(): number {
    return this.answer - this.produced;
  }
}

class FakeMemory implements Memory<FakeTask> {
  readonly holders = new Set<FakeTask>();

  constructor(readonly blocks: number) {}

  enter(task: FakeTask): void {
    this.holders.add(task);
  }

  leave(task: FakeTask): void {
    task.held = 0;
    this.holders.delete(task);
  }

  fits(entries: readonly Entry<FakeTask>[]): boolean {
    const more = new Map(entries.map(({ task, tokens }) => [task, tokens]));
    let used = 0;
    for (const task of this.holders) used += Math.ceil((task.held + (more.get(task) ?? 0)) / BLOCK);
    return used <= this.blocks;
  }
}

interface Setup {
  blocks?: number;
  maxSequences?: number;
  stepTokens?: number;
  beside?: number;
}

function setUp({ blocks = 100, maxSequences = 4, stepTokens = 128, beside = 64 }: Setup = {}) {
  const memory = new FakeMemory(blocks);
  const scheduler = new Scheduler(memory, {
    maxSequences,
    stepTokens,
    promptTokensBeside: () => beside,
  });
  const ended: FakeTask[] = [];
  /** Plans and computes a step. */
  const step = (now = 0): Entry<FakeTask>[] => {
    const entries = scheduler.plan(now);
    for (const { task, tokens } of entries) {
      task.held += tokens;
      if (task.pending > 0) continue;
      if (++task.produced < task.answer) continue;
      scheduler.remove(task);
      ended.push(task);
    }
    return entries;
  };
  return { memory, scheduler, step, ended };
}

function names(entries: readonly Entry<FakeTask>[]): [number, number][] {
  return entries.map(({ task, tokens }) => [task.name, tokens]);
}

test('sequences that decode come first, prompts take what is left, in chunks', () => {
  const { scheduler, step } = setUp();
  scheduler.add(new FakeTask(0, 130, 5));
  expect(names(step())).toEqual([[0, 128]]);
  expect(names(step())).toEqual([[0, 2]]);
  scheduler.add(new FakeTask(1, 100, 5));
  expect(names(step())).toEqual([
    [0, 1],
    [1, 64],
  ]);
  expect(names(step())).toEqual([
    [0, 1],
    [1, 36],
  ]);
  expect(names(step())).toEqual([
    [0, 1],
    [1, 1],
  ]);
});

test('users take turns, whoever of them sent more', () => {
  const { scheduler, step, ended } = setUp({ maxSequences: 1 });
  for (let i = 0; i < 6; i++) scheduler.add(new FakeTask(i, 10, 1, 'many'));
  scheduler.add(new FakeTask(6, 10, 1, 'one'));
  scheduler.add(new FakeTask(7, 10, 1, 'two'));
  while (scheduler.running + scheduler.waiting > 0) step();
  expect(ended.map(({ name }) => name)).toEqual([0, 6, 7, 1, 2, 3, 4, 5]);
});

test('a long prompt of one user leaves room for a short one of another', () => {
  const { scheduler, step } = setUp();
  scheduler.add(new FakeTask(0, 1000, 1, 'long'));
  step();
  scheduler.add(new FakeTask(1, 20, 1, 'short'));
  const rows = [...names(step()), ...names(step()), ...names(step())];
  expect(rows.some(([name]) => name === 1)).toBe(true);
});

test('larger priorities go first, and take blocks and places from smaller ones', () => {
  const { scheduler, step, ended } = setUp({ maxSequences: 2 });
  scheduler.add(new FakeTask(0, 10, 50));
  scheduler.add(new FakeTask(1, 10, 50));
  step();
  scheduler.add(new FakeTask(2, 10, 1, undefined, 1));
  expect(names(step())).toContainEqual([2, 10]);
  expect(scheduler.preempted).toBe(1);
  expect(ended.map(({ name }) => name)).toEqual([2]);
  // The newer of the two lost its place, and has it again.
  expect(names(step())).toEqual([
    [0, 1],
    [1, 11],
  ]);
});

test('where the cache is full the newest sequence of the lowest priority makes room and goes on later', () => {
  const { scheduler, step, ended, memory } = setUp({ blocks: 4 });
  const tasks = [0, 1, 2].map((name) => new FakeTask(name, 20, 200, undefined, name === 0 ? 0 : 1));
  tasks.forEach((task) => scheduler.add(task));
  while (scheduler.running + scheduler.waiting > 0) {
    expect(step().length).toBeGreaterThan(0);
    expect(memory.fits([])).toBe(true);
  }
  expect(scheduler.preempted).toBeGreaterThan(0);
  expect(ended.at(-1)!.name).toBe(0);
  expect(ended.every((task) => task.produced === 200)).toBe(true);
});

test('a sequence whose reader lags computes nothing, makes room after a while and goes on', () => {
  const { scheduler, step } = setUp();
  const task = new FakeTask(0, 10, 50);
  scheduler.add(task);
  step(0);
  task.laggingSince = 0;
  expect(step(1000)).toEqual([]);
  expect(scheduler.running).toBe(1);
  expect(step(3000)).toEqual([]);
  expect([scheduler.running, scheduler.waiting, task.held]).toEqual([0, 1, 0]);
  task.laggingSince = null;
  expect(names(step(4000))).toEqual([[0, 11]]);
});

test('of readers that lag and others, those that lag make room first', () => {
  const { scheduler, step } = setUp({ blocks: 3 });
  const first = new FakeTask(0, 60, 100);
  const second = new FakeTask(1, 10, 100);
  scheduler.add(first);
  scheduler.add(second);
  step();
  first.laggingSince = 0;
  for (let i = 0; i < 60; i++) step();
  scheduler.add(new FakeTask(2, 100, 100));
  step();
  expect([first.held, second.held > 0]).toEqual([0, true]);
});

test('a removed task is gone at once, waiting or running', () => {
  const { scheduler, step, memory } = setUp({ maxSequences: 1 });
  const tasks = [new FakeTask(0, 10, 50), new FakeTask(1, 10, 50)];
  tasks.forEach((task) => scheduler.add(task));
  step();
  tasks.forEach((task) => scheduler.remove(task));
  scheduler.remove(tasks[0]);
  expect([scheduler.running, scheduler.waiting, memory.holders.size]).toEqual([0, 0, 0]);
  expect(step()).toEqual([]);
});

test('any requests, lags and cancels: within budgets, nobody starves, everything ends', () => {
  const task = fc.record({
    at: fc.nat(60),
    prompt: fc.integer({ min: 1, max: 300 }),
    answer: fc.integer({ min: 1, max: 80 }),
    user: fc.constantFrom(undefined, 'a', 'b'),
    priority: fc.nat(2),
    cancelAt: fc.option(fc.nat(200), { freq: 4 }),
    lag: fc.option(fc.record({ from: fc.nat(100), to: fc.nat(300) }), { freq: 4 }),
  });
  const setups = fc.record({
    blocks: fc.integer({ min: 6, max: 20 }),
    maxSequences: fc.integer({ min: 1, max: 6 }),
    stepTokens: fc.integer({ min: 6, max: 200 }),
    beside: fc.integer({ min: 1, max: 64 }),
  });
  fc.assert(
    fc.property(fc.array(task, { minLength: 1, maxLength: 14 }), setups, (requests, setup) => {
      const { scheduler, step, memory, ended } = setUp(setup);
      const tasks = requests.map((r, i) => new FakeTask(i, r.prompt, r.answer, r.user, r.priority));
      const cancelled = new Set<FakeTask>();
      let work = 0;
      for (let now = 0; ended.length + cancelled.size < tasks.length; now++) {
        requests.forEach(({ at, cancelAt, lag }, i) => {
          if (at === now) scheduler.add(tasks[i]);
          if (lag !== null)
            tasks[i].laggingSince = now >= lag.from && now < lag.to ? lag.from : null;
          if (cancelAt !== null && now === at + cancelAt && !ended.includes(tasks[i])) {
            scheduler.remove(tasks[i]);
            cancelled.add(tasks[i]);
          }
        });
        // Every 60th of a second, so that lags exceed what is waited for them.
        const entries = step(now * 16);
        const total = entries.reduce((sum, { tokens }) => sum + tokens, 0);
        const chosen = new Set(entries.map((entry) => entry.task));
        const able = [...memory.holders].some((held) => held.laggingSince === null);
        // As one assertion: expect() would take most of the test's time.
        const broken = [
          total > setup.stepTokens && 'more tokens than a step has',
          memory.holders.size > setup.maxSequences && 'too many sequences',
          !memory.fits([]) && 'more blocks than there are',
          chosen.size < entries.length && 'a sequence twice',
          [...chosen].some(({ laggingSince }) => laggingSince !== null) && 'one that lags',
          able && total === 0 && 'no progress',
          now > 20_000 && 'no end',
        ].filter((problem) => problem !== false);
        if (broken.length > 0) throw new Error(`At ${now}: ${broken.join(', ')}`);
        work += total;
      }
      expect(memory.holders.size).toBe(0);
      expect(scheduler.running + scheduler.waiting).toBe(0);
      const useful = ended.reduce((sum, { prompt, answer }) => sum + prompt + answer - 1, 0);
      expect(work).toBeGreaterThanOrEqual(useful);
    }),
    { numRuns: 100 },
  );
});
