/**
 * A contender runs in a process of its own and is asked one thing at a time: a line of JSON in, a line of JSON out.
 *
 *   -> {"command": "prepare", "argument": {...}}     <- {"value": ...} or {"error": "..."}
 *
 * The Node workers answer by `serve`; workers/pytorch.py speaks the same lines. Anything else they print goes to stderr.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { createInterface, type Interface } from 'node:readline';

interface Answer {
  value?: unknown;
  error?: string;
}

export type Handlers = Record<string, (argument: never) => unknown>;

/** Answers requests on stdin until it closes. */
export function serve(handlers: Handlers): void {
  const lines = createInterface({ input: process.stdin });
  const answers = process.stdout.write.bind(process.stdout);
  // A library's own words must not mix with the answers.
  console.log = console.error;
  let last: Promise<unknown> = Promise.resolve();
  lines.on('line', (line) => {
    last = last.then(async () => {
      const { command, argument } = JSON.parse(line) as { command: string; argument: never };
      let answer: Answer;
      try {
        answer = { value: (await handlers[command](argument)) ?? null };
      } catch (error) {
        answer = { error: String(error) };
      }
      answers(`${JSON.stringify(answer)}\n`);
    });
  });
  lines.on('close', () => void last.then(() => process.exit(0)));
}

export class Contender {
  private readonly child: ChildProcess;
  private readonly lines: Interface;
  private waiting: ((answer: Answer) => void) | null = null;

  /** Starts the process `command`, whose environment is this one's with `environment` on top. */
  constructor(
    readonly name: string,
    [program, ...programArguments]: readonly string[],
    environment: Readonly<Record<string, string>> = {},
  ) {
    this.child = spawn(program, programArguments, {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, ...environment },
    });
    this.lines = createInterface({ input: this.child.stdout! });
    this.lines.on('line', (line) => this.settle(JSON.parse(line) as Answer));
    this.child.on('error', (error) => this.settle({ error: String(error) }));
    this.child.on('close', () => this.settle({ error: `${name} ended` }));
    // Written to after its end: 'close' tells.
    this.child.stdin!.on('error', () => undefined);
  }

  /** Undefined where it could not be started. */
  get pid(): number | undefined {
    return this.child.pid;
  }

  /** @throws what the process failed with, or that it ended */
  async ask<T = unknown>(command: string, argument: unknown = null): Promise<T> {
    if (this.child.exitCode !== null) throw new Error(`${this.name} ended`);
    const answer = await new Promise<Answer>((resolve) => {
      this.waiting = resolve;
      this.child.stdin!.write(`${JSON.stringify({ command, argument })}\n`);
    });
    if (answer.error !== undefined) throw new Error(`${this.name}: ${answer.error}`);
    return answer.value as T;
  }

  /** Closes its stdin and waits for its end. */
  async stop(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const closed = new Promise((resolve) => this.child.on('close', resolve));
    this.child.stdin!.end();
    await closed;
  }

  private settle(answer: Answer): void {
    this.waiting?.(answer);
    this.waiting = null;
  }
}
