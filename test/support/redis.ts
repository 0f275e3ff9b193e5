/** A Redis or Valkey server of a test's own, on a socket in a temporary folder. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createClient } from '@redis/client';

/** The command of an installed server; null where there is none. */
export const serverCommand =
  ['valkey-server', 'redis-server'].find(
    (command) => spawnSync(command, ['--version']).status === 0,
  ) ?? null;

export type Client = ReturnType<typeof createClient>;

export class RedisServer {
  private readonly folder = mkdtempSync(join(tmpdir(), 'gqa-redis-'));
  private readonly socket = join(this.folder, 'socket');
  private readonly clients: Client[] = [];
  private process: ChildProcess | null = null;

  /** Starts the server, with what it had before; every write is on the disk before it is answered. */
  async start(): Promise<void> {
    const settings = ['--port', '0', '--unixsocket', this.socket, '--dir', this.folder];
    const lasting = ['--save', '', '--appendonly', 'yes', '--appendfsync', 'always'];
    const quiet = ['--logfile', join(this.folder, 'log')];
    this.process = spawn(serverCommand!, [...settings, ...lasting, ...quiet], { stdio: 'ignore' });
    // A client that connects waits until the server has read what it had.
    const client = await this.connect();
    while ((await client.sendCommand(['PING']).catch(String)) !== 'PONG');
  }

  /** A connected client, which connects again by itself. */
  async connect(): Promise<Client> {
    const client = createClient({ socket: { path: this.socket, reconnectStrategy: 20 } });
    // Without a listener an error would end the process.
    client.on('error', () => undefined);
    this.clients.push(client as Client);
    await client.connect();
    return client as Client;
  }

  /** Where other processes find it. */
  get url(): string {
    return `unix://${this.socket}`;
  }

  /** SIGSTOP: takes connections, and says nothing until resume(). */
  pause(): void {
    this.process?.kill('SIGSTOP');
  }

  resume(): void {
    this.process?.kill('SIGCONT');
  }

  /** SIGKILL: nothing is finished, nothing is said. */
  kill(): void {
    this.process?.kill('SIGKILL');
  }

  /** Resolves when the server is gone. */
  async gone(): Promise<void> {
    const { process } = this;
    if (process !== null && process.exitCode === null && process.signalCode === null) {
      await once(process, 'exit');
    }
  }

  async stop(): Promise<void> {
    for (const client of this.clients) client.destroy();
    this.kill();
    await this.gone();
    rmSync(this.folder, { recursive: true });
  }
}
