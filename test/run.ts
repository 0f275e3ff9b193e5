/**
 * `npm test`: every test once on the backend that the package chooses, then the suites of TARGET_SUITES once per target,
 * each in processes of its own, because the addon chooses its instruction set once per process.
 *
 *   node dist/test/run.js [--targets-only] [jest arguments]
 *
 * Patterns of files among the arguments narrow every run; options take their values after '='.
 *
 * GQA_TEST_TARGETS=neon,scalar   these targets and no others
 * GQA_TEST_NODE='qemu-... node'  the command that runs Node, for emulation
 * GQA_TEST_LEAN=1                fewer random samples
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import {
  hasWiderSibling,
  targetEnvironment,
  targetsToTest,
  type Target,
} from './conformance/targets';
import { nodeCommand } from './support/child';

const compiledRoot = resolve(__dirname, '..');
/** What every target must pass. */
const TARGET_SUITES = ['test/conformance/', 'test/property/', 'test/model/embedded'];
/** Depends on the backend, but not on the instruction set. */
const BACKEND_SUITES = ['test/lifecycle/'];

interface Outcome {
  name: string;
  passed: number;
  failed: number;
  skipped: number;
  ok: boolean;
}

/** `suites`: globs of paths as far as where a file's name may go on; those after '!' are left out. */
function runJest(
  name: string,
  suites: readonly string[],
  env: Record<string, string>,
  jestArguments: string[],
): Outcome {
  const folder = mkdtempSync(join(tmpdir(), 'gqa-test-'));
  const report = join(folder, 'report.json');
  const config = {
    rootDir: compiledRoot,
    testEnvironment: 'node',
    // <rootDir> is known at the start of a glob only, so not behind '!'.
    testMatch: suites.map((suite) => suite.replace(/^!?/, '$&**/') + '*.test.js'),
  };
  const [command, ...prefix] = nodeCommand();
  const emulated = prefix.length > 0;
  const patterns = jestArguments.filter((a) => !a.startsWith('-'));
  const options = jestArguments.filter((a) => a.startsWith('-'));
  const narrowed = patterns.length > 0;
  const { status } = spawnSync(
    command,
    [
      ...prefix,
      '--expose-gc',
      require.resolve('jest/bin/jest'),
      // First, because lists like --testPathIgnorePatterns take in what comes after them.
      ...patterns,
      `--config=${JSON.stringify(config)}`,
      '--json',
      `--outputFile=${report}`,
      ...(emulated ? ['--runInBand'] : []),
      ...(narrowed ? ['--passWithNoTests'] : []),
      ...(options.some((a) => a.startsWith('--testTimeout')) ? [] : ['--testTimeout=60000']),
      ...options,
    ],
    { stdio: ['ignore', 'ignore', 'inherit'], env: { ...process.env, ...env } },
  );
  const outcome: Outcome = { name, passed: 0, failed: 0, skipped: 0, ok: status === 0 };
  try {
    const json = JSON.parse(readFileSync(report, 'utf8'));
    outcome.passed = json.numPassedTests;
    outcome.failed = json.numFailedTests;
    outcome.skipped = json.numPendingTests;
  } catch (error) {
    console.error(`${name}: jest left no report (exit status ${status}): ${String(error)}`);
    outcome.ok = false;
  }
  rmSync(folder, { recursive: true });
  // A target on which nothing ran has not passed, unless files were picked.
  if (outcome.passed === 0 && !narrowed) outcome.ok = false;
  return outcome;
}

function describeOutcome({ name, passed, failed, skipped, ok }: Outcome): string {
  const counts = [`${passed} passed`];
  if (failed > 0) counts.push(`${failed} failed`);
  if (skipped > 0) counts.push(`${skipped} skipped`);
  return `${name}: ${counts.join(', ')}${ok ? '' : '  FAILED'}`;
}

/** The sum, alone on the last line for scripts to read; a run that broke without a failed test counts as one failure. */
function closingLine(outcomes: Outcome[]): string {
  const passed = outcomes.reduce((sum, o) => sum + o.passed, 0);
  const failed = outcomes.reduce((sum, o) => sum + (o.ok ? 0 : Math.max(1, o.failed)), 0);
  return `${passed} passed, ${failed} failed`;
}

/** A target whose wider sibling runs too shares nearly all of its code with it: fewer random samples will do. */
function leanness(target: Target, targets: readonly Target[]): Record<string, string> {
  return hasWiderSibling(target, targets) ? { GQA_TEST_LEAN: '1' } : {};
}

/** No test writes packed weights to the home folder of whoever runs it. */
function keepOutOfHome(): void {
  if (process.env.GQA_CACHE_DIR !== undefined) return;
  const folder = mkdtempSync(join(tmpdir(), 'gqa-test-weights-'));
  process.env.GQA_CACHE_DIR = folder;
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
}

function main(): void {
  const given = process.argv.slice(2);
  keepOutOfHome();
  const targetsOnly = given.includes('--targets-only');
  const jestArguments = given.filter((a) => a !== '--targets-only');
  const outcomes: Outcome[] = [];
  if (!targetsOnly) {
    console.log('== all tests, on the backend the package chooses');
    const suites = ['test/**/', ...TARGET_SUITES.map((suite) => `!${suite}`)];
    outcomes.push(runJest('unit', suites, {}, jestArguments));
  }
  const targets = targetsToTest();
  for (const target of targets) {
    console.log(`== conformance on ${target}`);
    const backendToo = target === 'js' || targetsOnly;
    const suites = [...TARGET_SUITES, ...(backendToo ? BACKEND_SUITES : [])];
    const env = { ...targetEnvironment(target), ...leanness(target, targets) };
    outcomes.push(runJest(target, suites, env, jestArguments));
  }
  console.log(`\n${outcomes.map(describeOutcome).join('\n')}`);
  console.log(closingLine(outcomes));
  const ran = outcomes.some((o) => o.passed > 0);
  process.exitCode = ran && outcomes.every((o) => o.ok) ? 0 : 1;
}

main();
