/** A small load with clients that give up; `npm run load:server` is the large one. */
import { existsSync } from 'node:fs';
import { runLoad } from '../support/server-load';
import { ServeProcess } from '../support/serve-process';
import { skipped } from '../support/package';

const here = existsSync('/proc/self/fd') ? test : skipped('no /proc: no footprint of a process');

here('answers under load are those of a request alone, and nothing is left behind', async () => {
  const server = await ServeProcess.start(['--log-level', 'warn', '--max-sequences', '6']);
  const report = await runLoad(server, { requests: 120, concurrency: 10, seed: 3 });
  expect(report.wrong).toEqual([]);
  expect(report.leaks).toEqual([]);
  expect(report.answered).toBeGreaterThan(60);
  expect(report.cancelled).toBeGreaterThan(5);
  expect(report.refused).toBe(0);
  expect(await server.end()).toBe(0);
});
