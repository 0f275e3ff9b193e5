/**
 * The engine without a thread: requests come in, each step() computes the next tokens of as many as it can and leaves
 * what came of it to be taken. Synchronous.
 */
import type { KvCache } from '../kv-cache/kv-cache';
import type { LanguageModel, TokenRun } from '../model/types';
import { packError } from '../model/worker-protocol';
import { EngineTask } from './engine-task';
import { tokenLogprobs } from './logprobs';
import {
  clock,
  type WireEnd,
  type WireRequest,
  type WireTokens,
  type WorkerStats,
} from './protocol';
import { SharedScratch } from './request-sampler';
import { Scheduler, type Entry } from './scheduler';
import { NO_SPECULATION, type Speculator } from './speculation';
import { StepCost } from './step-cost';
import { TaskMemory, type BlockTier } from './task-memory';

export interface CoreOptions {
  maxSequences: number;
  stepTokens: number;
  /** What the cache was made with. */
  budgetTokens: number;
  speculator?: Speculator | null;
  tier?: BlockTier | null;
}

/** What steps brought. */
export interface News {
  tokens: WireTokens[];
  ended: WireEnd[];
}

/** A prompt's chunk may make the step of those that decode last so many milliseconds, or twice as long. */
const MIXED_STEP_MS = 200;
/** Prompt tokens beside sequences that decode: no fewer, or prompts would never get done; no more than half a step. */
const LEAST_CHUNK = 16;
/** Weight of the newest step in the mean. */
const MEAN_RATE = 0.05;

/** The next tokens of a task in a step: some of its own and drafts of those to come. */
interface Row {
  task: EngineTask;
  ids: number[];
  drafts: readonly number[];
  want: TokenRun['want'];
}

export class EngineCore {
  private readonly memory: TaskMemory;
  private readonly scheduler: Scheduler<EngineTask>;
  private readonly tasks = new Map<number, EngineTask>();
  private readonly cost = new StepCost();
  private readonly speculator: Speculator;
  private readonly scratch: SharedScratch;
  private readonly vocabSize: number;
  private logits = new Float32Array(0);
  private news: News = { tokens: [], ended: [] };
  private steps = 0;
  private stepMs = 0;
  private promptTokens = 0;
  private generatedTokens = 0;

  /** The cache has room for maxSequences, and its budget for the longest of requests. */
  constructor(
    private readonly model: LanguageModel,
    cache: KvCache,
    private readonly options: CoreOptions,
  ) {
    this.vocabSize = model.config.vocabSize;
    this.scratch = new SharedScratch(this.vocabSize);
    this.speculator = options.speculator ?? NO_SPECULATION;
    const { maxSequences, stepTokens, budgetTokens } = options;
    this.memory = new TaskMemory(cache, {
      capacityTokens: budgetTokens,
      onLeave: (task) => this.speculator.forget(task),
      tier: options.tier ?? null,
    });
    this.scheduler = new Scheduler(this.memory, {
      maxSequences,
      stepTokens,
      promptTokensBeside: (decoding) => this.promptTokensBeside(decoding),
    });
  }

  get idle(): boolean {
    return this.tasks.size === 0;
  }

  submit(request: WireRequest): void {
    const task = new EngineTask(request, this.vocabSize, this.scratch);
    this.tasks.set(task.id, task);
    this.scheduler.add(task);
  }

  /** The request takes part in no further step; nothing more is heard of it. */
  cancel(id: number): void {
    const task = this.tasks.get(id);
    if (task !== undefined) this.forget(task);
  }

  /** The reader of this request has taken so many further tokens. */
  read(id: number, tokens: number): void {
    this.tasks.get(id)?.read(tokens);
  }

  /** Computes the next tokens; false where there is nothing to compute now. */
  step(): boolean {
    const startedAt = clock();
    const entries = this.scheduler.plan(startedAt);
    if (entries.length === 0) return false;
    const rows = this.rowsOf(entries, startedAt);
    try {
      this.compute(rows);
    } catch (error) {
      for (const { task } of rows) this.fail(task, error);
      return true;
    }
    const count = rows.reduce((sum, { ids }) => sum + ids.length, 0);
    this.cost.record(count, clock() - startedAt);
    this.takeRows(rows);
    this.steps++;
    const ms = clock() - startedAt;
    this.stepMs += (this.steps === 1 ? 1 : MEAN_RATE) * (ms - this.stepMs);
    return true;
  }

  /** What came of the steps since the last call. */
  takeNews(): News {
    const { news } = this;
    this.news = { tokens: [], ended: [] };
    return news;
  }

  /** Of prefixes beyond this process it knows nothing. */
  stats(): Omit<WorkerStats, 'store'> {
    const { memory, scheduler, steps, stepMs, promptTokens, generatedTokens } = this;
    const { hitTokens, lookupTokens, capacityTokens } = memory;
    const { running, waiting, preempted } = scheduler;
    return {
      ...{ running, waiting, preempted, promptTokens, generatedTokens, steps, stepMs },
      cache: { capacityTokens, ...memory.usage(), hitTokens, lookupTokens },
      speculation: this.speculator.totals,
    };
  }

  private rowsOf(entries: readonly Entry<EngineTask>[], now: number): Row[] {
    const rows = entries.map(({ task, tokens }): Row => {
      if (!task.admitted) this.memory.count(task, now);
      const from = task.tokens.length - task.pending;
      const want = tokens === task.pending ? 'last' : 'none';
      return { task, ids: task.tokens.slice(from, from + tokens), drafts: [], want };
    });
    this.addDrafts(rows);
    return rows;
  }

  /** Drafts for those that decode, where the step and the cache have room for them. */
  private addDrafts(rows: Row[]): void {
    const used = rows.reduce((sum, { ids }) => sum + ids.length, 0);
    const decoding = rows.filter(({ ids, want }) => ids.length === 1 && want === 'last');
    const drafts = this.speculator.propose(
      decoding.map(({ task }) => task),
      { rows: used, most: this.options.stepTokens - used, cost: this.cost },
    );
    if (drafts.size === 0) return;
    const tokens = ({ task, ids }: Row): number => ids.length + (drafts.get(task)?.length ?? 0);
    if (!this.memory.fits(rows.map((row) => ({ task: row.task, tokens: tokens(row) })))) return;
    for (const row of decoding) {
      const drafted = drafts.get(row.task) ?? [];
      if (drafted.length === 0) continue;
      row.drafts = drafted;
      row.ids.push(...drafted);
      row.want = 'all';
    }
  }

  private compute(rows: readonly Row[]): void {
    const wanted = rows.reduce((sum, row) => sum + wantedRows(row), 0);
    if (this.logits.length < wanted * this.vocabSize) {
      this.logits = new Float32Array(wanted * this.vocabSize);
    }
    const runs = rows.map(({ task, ids, want }) => ({ sequence: task.sequence!, ids, want }));
    this.model.step(runs, this.logits);
  }

  private takeRows(rows: readonly Row[]): void {
    let first = 0;
    const now = clock();
    for (const row of rows) {
      const { task, ids, want } = row;
      const begins = task.tokens.length - task.promptTokens === 0;
      if (begins && want !== 'all') this.promptTokens += ids.length;
      if (want === 'none') continue;
      if (begins) this.memory.offer(task);
      try {
        this.takeTokens(row, first, now);
      } catch (error) {
        this.fail(task, error);
      }
      first += wantedRows(row);
    }
  }

  /** The tokens that a row of logits, and those of its drafts that turn out right, give. */
  private takeTokens({ task, drafts }: Row, first: number, now: number): void {
    const news: WireTokens = { id: task.id, tokens: [], logprobs: [], progress: task.progress };
    const { logprobs } = task.request;
    let endId: number | null = null;
    let accepted = 0;
    for (let i = 0; task.left > 0; i++) {
      const logits = this.rowAt(first + i);
      const { token, ends } = task.choose(logits);
      if (ends) {
        endId = token;
        break;
      }
      task.grow(token, now);
      news.tokens.push(token);
      if (logprobs >= 0) news.logprobs.push(tokenLogprobs(logits, token, logprobs));
      if (i === drafts.length || token !== drafts[i]) break;
      accepted++;
    }
    this.generatedTokens += news.tokens.length;
    if (news.tokens.length > 0) this.news.tokens.push(news);
    if (drafts.length > 0) {
      task.progress.drafted += drafts.length;
      task.progress.accepted += accepted;
      this.speculator.learn(task, drafts.length, accepted);
    }
    // The newest token is not in the cache yet, and neither may drafts be that were wrong.
    const computed = task.tokens.length - (endId === null ? 1 : 0);
    if (task.sequence!.length > computed) task.sequence!.truncate(computed);
    if (endId !== null) this.end(task, 'end', endId);
    else if (task.left === 0) this.end(task, 'length');
  }

  private rowAt(row: number): Float32Array {
    return this.logits.subarray(row * this.vocabSize, (row + 1) * this.vocabSize);
  }

  private fail(task: EngineTask, error: unknown): void {
    this.end(task, 'failed', null, packError(error));
  }

  private end(
    task: EngineTask,
    reason: WireEnd['reason'],
    endId: number | null = null,
    error: WireEnd['error'] = null,
  ): void {
    this.forget(task);
    this.news.ended.push({ id: task.id, reason, endId, error, progress: task.progress });
  }

  private forget(task: EngineTask): void {
    this.tasks.delete(task.id);
    this.scheduler.remove(task);
  }

  private promptTokensBeside(decoding: number): number {
    const most = Math.max(1, Math.floor(this.options.stepTokens / 2));
    const ms = Math.max(MIXED_STEP_MS, 2 * this.cost.of(decoding));
    return Math.max(Math.min(LEAST_CHUNK, most), this.cost.within(ms, decoding, most));
  }
}

function wantedRows({ ids, want }: Row): number {
  return want === 'all' ? ids.length : want === 'last' ? 1 : 0;
}
