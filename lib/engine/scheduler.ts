/**
 * What each step computes, as a pure function of what waits and runs: no model, no clock of its own.
 *
 * - Sequences that decode come first, one token each; what is left of the step's tokens goes to prompts, in chunks.
 * - Users take turns at being admitted and at prompt chunks; a larger priority goes before any turn.
 * - A waiting task is admitted where its tokens, and a block more for all that run, find room. Nothing overtakes it there.
 * - Where the cache is full, or a task of larger priority waits, the sequence of the lowest priority, and of those the
 *   newest, loses its blocks and waits again. The first in that order never does, so that there is always progress.
 * - A sequence whose reader lags computes nothing. It is the first to lose its blocks, and loses them after a while anyway.
 */
import { GqaError } from '../core/errors';
import { Turns } from './turns';

/** A request as the scheduler sees it. */
export interface Task {
  readonly user: string | undefined;
  /** Larger goes first. */
  readonly priority: number;
  /** Tokens that are not in the cache: 1 while it decodes. */
  readonly pending: number;
  /** Tokens that it may still produce, at least 1. */
  readonly left: number;
  /** Tokens that its sequence takes in one step at most. */
  readonly longestChunk: number;
  /** When its reader began to lag, on the clock of plan(); null where it does not. */
  readonly laggingSince: number | null;
}

export interface Entry<T extends Task> {
  task: T;
  /** The next of its pending tokens. */
  tokens: number;
}

/** The cache, which gives blocks to tasks. */
export interface Memory<T extends Task> {
  /** Gives the task a sequence, with as much of its tokens as is found; `pending` is less then. */
  enter(task: T): void;
  /** Takes its sequence away; all of its tokens are pending again. */
  leave(task: T): void;
  /** Whether tasks that have entered find blocks for so many further tokens. */
  fits(entries: readonly Entry<T>[]): boolean;
}

export interface SchedulerOptions {
  /** Sequences that run at once. */
  maxSequences: number;
  /** Tokens of a step at most; at least maxSequences. */
  stepTokens: number;
  /** Prompt tokens that may stand beside so many decoding sequences in a step: limits how long those wait. */
  promptTokensBeside(decoding: number): number;
}

/** Tokens that all running sequences must find room for when one more is admitted: a block. */
const HEADROOM = 64;
/** Milliseconds after which a sequence whose reader lags makes room. */
const LAG_LIMIT = 2000;

export class Scheduler<T extends Task> {
  /** Tasks that lost their blocks, so far. */
  preempted = 0;
  private readonly turns = new Turns();
  private readonly arrivals = new Map<T, number>();
  private readonly waitingTasks = new Set<T>();
  private readonly runningTasks = new Set<T>();
  private nextArrival = 0;

  constructor(
    private readonly memory: Memory<T>,
    private readonly options: SchedulerOptions,
  ) {}

  get running(): number {
    return this.runningTasks.size;
  }

  get waiting(): number {
    return this.waitingTasks.size;
  }

  add(task: T): void {
    this.arrivals.set(task, this.nextArrival++);
    this.turns.join(task.user);
    this.waitingTasks.add(task);
  }

  /** The task has ended or was cancelled; its blocks are free at once. */
  remove(task: T): void {
    if (!this.arrivals.delete(task)) return;
    this.turns.leave(task.user);
    this.waitingTasks.delete(task);
    if (this.runningTasks.delete(task)) this.memory.leave(task);
  }

  /** What the next step computes; empty where nothing can be. @param now milliseconds */
  plan(now: number): Entry<T>[] {
    for (const task of this.runningTasks) {
      if (task.laggingSince !== null && now - task.laggingSince > LAG_LIMIT) this.preempt(task);
    }
    this.admit();
    const entries = this.decodes();
    this.addPrompts(entries);
    return entries;
  }

  /** One token of every sequence that decodes; those that the cache has no room for make it. */
  private decodes(): Entry<T>[] {
    const entries: Entry<T>[] = [];
    const decoding = [...this.runningTasks].filter(isDecoding);
    for (const task of decoding.sort((a, b) => this.rank(a, b))) {
      if (this.runningTasks.has(task)) this.fit(entries, { task, tokens: 1 });
    }
    return entries;
  }

  private addPrompts(entries: Entry<T>[]): void {
    let room = this.promptRoom(entries.length);
    const prompts = [...this.runningTasks].filter(isPrompt);
    for (const task of prompts.sort((a, b) => this.order(a, b))) {
      const tokens = Math.min(task.pending, task.longestChunk, room);
      if (tokens === 0) break;
      if (!this.runningTasks.has(task) || !this.fit(entries, { task, tokens })) continue;
      room -= tokens;
      this.turns.take(task.user);
    }
  }

  private promptRoom(decoding: number): number {
    const room = this.options.stepTokens - decoding;
    if (decoding === 0) return room;
    return Math.min(room, Math.max(1, this.options.promptTokensBeside(decoding)));
  }

  /** Adds an entry, at the cost of sequences that come after its task; false where there is no room even so. */
  private fit(entries: Entry<T>[], entry: Entry<T>): boolean {
    while (!this.memory.fits([...entries, entry])) {
      const victim = this.victim((task) => task !== entry.task && this.rank(entry.task, task) < 0);
      if (victim === undefined) {
        if (this.runningTasks.size > 1) return false;
        throw new GqaError('INTERNAL', 'A sequence alone finds no room in the cache');
      }
      this.preempt(victim);
      const at = entries.findIndex(({ task }) => task === victim);
      if (at >= 0) entries.splice(at, 1);
    }
    entries.push(entry);
    return true;
  }

  /**
   * Lets tasks in where a step has room for their prompts, or nobody's turn is before theirs: the later a task enters,
   * the more of its prompt others may have left in the cache.
   */
  private admit(): void {
    for (let task = this.nextWaiting(); task !== undefined; task = this.nextWaiting()) {
      if (this.mustQueue(task) || !this.enter(task)) return;
    }
  }

  /** Whether prompts that run fill the next step, one of the same user among them. */
  private mustQueue({ user, priority }: T): boolean {
    const running = [...this.runningTasks];
    const prompts = running.filter(isPrompt);
    const pending = prompts.reduce((sum, task) => sum + task.pending, 0);
    const room = this.promptRoom(running.filter(isDecoding).length);
    return (
      pending >= room && prompts.some((task) => task.user === user && task.priority >= priority)
    );
  }

  private nextWaiting(): T | undefined {
    let next: T | undefined;
    for (const task of this.waitingTasks) {
      if (task.laggingSince !== null) continue;
      if (next === undefined || this.order(task, next) < 0) next = task;
    }
    return next;
  }

  /** Gives a task a sequence, at the cost of those of smaller priority; false where there is no room even so. */
  private enter(task: T): boolean {
    const makeRoom = (): boolean => {
      const victim = this.victim(({ priority }) => priority < task.priority);
      if (victim !== undefined) this.preempt(victim);
      return victim !== undefined;
    };
    while (this.runningTasks.size === this.options.maxSequences) if (!makeRoom()) return false;
    this.memory.enter(task);
    while (!this.hasRoom(task)) {
      if (makeRoom()) continue;
      this.memory.leave(task);
      return false;
    }
    this.waitingTasks.delete(task);
    this.runningTasks.add(task);
    this.turns.take(task.user);
    return true;
  }

  /** Whether all that run could go on for a block beside the newcomer's tokens. */
  private hasRoom(newcomer: T): boolean {
    const entries = [{ task: newcomer, tokens: newcomer.pending }];
    for (const task of this.runningTasks) {
      entries.push({ task, tokens: task.pending - 1 + Math.min(HEADROOM, task.left) });
    }
    return this.memory.fits(entries);
  }

  /** The running task to lose its blocks: one whose reader lags, else the last in rank of those allowed. */
  private victim(allowed: (task: T) => boolean): T | undefined {
    let victim: T | undefined;
    for (const task of this.runningTasks) {
      const lags = task.laggingSince !== null;
      if (!lags && !allowed(task)) continue;
      const victimLags = victim !== undefined && victim.laggingSince !== null;
      if (victimLags && !lags) continue;
      if (victim === undefined || lags !== victimLags || this.rank(victim, task) < 0) victim = task;
    }
    return victim;
  }

  private preempt(task: T): void {
    this.preempted++;
    this.runningTasks.delete(task);
    this.memory.leave(task);
    this.waitingTasks.add(task);
  }

  /** Negative where a keeps its blocks longer than b. */
  private rank(a: T, b: T): number {
    return b.priority - a.priority || this.arrivals.get(a)! - this.arrivals.get(b)!;
  }

  /** Negative where a is served before b. */
  private order(a: T, b: T): number {
    const turn = this.turns.of(a.user) - this.turns.of(b.user);
    return b.priority - a.priority || turn || this.arrivals.get(a)! - this.arrivals.get(b)!;
  }
}

function isDecoding(task: Task): boolean {
  return task.pending === 1 && task.laggingSince === null;
}

function isPrompt(task: Task): boolean {
  return task.pending > 1 && task.laggingSince === null;
}
