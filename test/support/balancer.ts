/** nginx in front of servers, as deploy/nginx.conf has it. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { packageRoot } from './package';

/** Whether nginx is installed. */
export const hasNginx = spawnSync('nginx', ['-v']).status === 0;

/** A port that is free now. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}

export class Balancer {
  url = '';
  private process: ChildProcess | null = null;
  private readonly folder = mkdtempSync(join(tmpdir(), 'gqa-nginx-'));

  /** The documented configuration with these addresses (host:port) and a free port; nginx's files are in a folder of its own. */
  async start(replicas: readonly string[]): Promise<void> {
    const port = await freePort();
    this.url = `http://127.0.0.1:${port}`;
    const folders = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
      (kind) => `${kind}_temp_path ${join(this.folder, kind)};`,
    );
    let text = readFileSync(join(packageRoot, 'deploy/nginx.conf'), 'utf8')
      .replace('listen 8080;', `listen 127.0.0.1:${port};`)
      .replace('http {', `http {\n${folders.join('\n')}\naccess_log off;`);
    replicas.forEach((address, i) => {
      text = text.replaceAll(`127.0.0.1:${8081 + i}`, address);
    });
    const file = join(this.folder, 'nginx.conf');
    writeFileSync(file, text);
    const log = join(this.folder, 'error.log');
    const settings = `daemon off; pid ${join(this.folder, 'pid')}; error_log ${log};`;
    const args = ['-p', this.folder, '-c', file, '-e', log, '-g', settings];
    this.process = spawn('nginx', args, { stdio: 'ignore' });
    while (!(await this.answers())) {
      if (this.process.exitCode !== null) throw new Error(`nginx: ${readFileSync(log, 'utf8')}`);
      await sleep(10);
    }
  }

  private async answers(): Promise<boolean> {
    return fetch(`${this.url}/metrics`).then(
      ({ status }) => status === 404,
      () => false,
    );
  }

  async stop(): Promise<void> {
    const { process } = this;
    if (process !== null && process.exitCode === null) {
      // Its workers end with the master.
      process.kill('SIGTERM');
      await once(process, 'exit');
    }
    rmSync(this.folder, { recursive: true });
  }
}
