/**
 * npm run load:server -- [--requests 2000] [--model PATH] [--concurrency 12]: requests of random lengths against `gqa serve`
 * in a process of its own, some cancelled, some with their connection cut. Every answer that was not must equal the one
 * that the same request gets alone; memory and open handles must be flat at the end. Exits with 1 where they are not.
 */
import { parseArgs } from 'node:util';
import { ServeProcess } from '../../test/support/serve-process';
import { runLoad } from '../../test/support/server-load';

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      requests: { type: 'string', default: '2000' },
      concurrency: { type: 'string', default: '12' },
      model: { type: 'string' },
      seed: { type: 'string', default: '1' },
    },
  });
  const flags = values.model === undefined ? [] : ['--model', values.model];
  const server = await ServeProcess.start([...flags, '--log-level', 'warn']);
  try {
    const report = await runLoad(server, {
      requests: Number(values.requests),
      concurrency: Number(values.concurrency),
      seed: Number(values.seed),
    });
    console.log(JSON.stringify(report, null, 2));
    if (report.wrong.length > 0 || report.leaks.length > 0) process.exitCode = 1;
  } finally {
    const code = await server.end();
    if (code !== 0) process.exitCode = 1;
  }
}

void main();
