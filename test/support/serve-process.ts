/** `gqa serve` in a process of its own, as users run it. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compiledRoot } from './child';
import { embeddedModel } from './package';

/** What a chat with the embedded model, which knows stories only, may look like. */
const CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] + ' ' }}{% endfor %}";

/** A copy of the embedded model that has a chat template; its folder's name is its id. */
export class ChatModel {
  private readonly folder = mkdtempSync(join(tmpdir(), 'gqa-chat-'));
  readonly id = 'stories-chat';
  readonly path = join(this.folder, this.id);

  constructor() {
    cpSync(embeddedModel, this.path, { recursive: true });
    const file = join(this.path, 'tokenizer_config.json');
    const config = JSON.parse(readFileSync(file, 'utf8'));
    writeFileSync(file, JSON.stringify({ ...config, chat_template: CHAT_TEMPLATE }));
  }

  remove(): void {
    rmSync(this.folder, { recursive: true });
  }
}

export class ServeProcess {
  url = '';
  /** What it has logged. */
  log = '';
  private readonly exited: Promise<unknown[]>;

  private constructor(readonly process: ChildProcess) {
    this.exited = once(process, 'exit');
    process.stderr!.on('data', (chunk: Buffer) => (this.log += chunk.toString()));
  }

  /** Resolves when the server takes requests. */
  static async start(args: string[], env: Record<string, string> = {}): Promise<ServeProcess> {
    const cli = join(compiledRoot, 'lib/cli/main.js');
    const child = spawn(process.execPath, ['--expose-gc', cli, 'serve', '--port', '0', ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...env },
    });
    const server = new ServeProcess(child);
    let printed = '';
    child.stdout.on('data', (chunk: Buffer) => (printed += chunk.toString()));
    const ended = server.exited.then(() => {
      throw new Error(`gqa serve ended: ${server.log}`);
    });
    ended.catch(() => undefined);
    while (!printed.includes('\n')) await Promise.race([once(child.stdout, 'data'), ended]);
    server.url = printed.trim();
    return server;
  }

  /** Sends a signal and resolves with the exit code, or the signal that ended it. */
  async end(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | NodeJS.Signals> {
    this.process.kill(signal);
    return this.gone();
  }

  async gone(): Promise<number | NodeJS.Signals> {
    const [code, signal] = await this.exited;
    return (code ?? signal) as number | NodeJS.Signals;
  }
}
