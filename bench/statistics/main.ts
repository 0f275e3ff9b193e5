/**
 * What statistics cost: of a decode call of attention, and of a model's decode step.
 *
 *   npm run bench:stats                          all shapes
 *   npm run bench:stats -- q8 bf16               those over these caches
 *   npm run bench:stats -- --model PATH [1000]   a model's step, over so many tokens
 */
import { backend } from '../../lib';
import { measureCalls, type Measured } from './calls';
import { measureModel } from './model';
import { ROUNDS } from './turns';

/** What statistics may cost. */
const BAR = 0.03;
const DEFAULT_CONTEXT = 1000;

function lineOf(m: Measured): string {
  const percent = (x: number): string => `${(100 * x).toFixed(2)} %`;
  const cells = [
    ...[m.name, String(m.context), m.cache],
    ...[`${m.first.toFixed(1)} µs`, `${m.second.toFixed(1)} µs`, percent(m.overhead)],
    ...[m.interval.map(percent).join(' to '), m.error.toExponential(1)],
  ];
  return `| ${cells.join(' | ')} |`;
}

function main(): void {
  const given = process.argv.slice(2);
  const { kind, isa, threads } = backend();
  console.log(`decode, ${kind} ${isa}, ${threads} threads, ${ROUNDS} rounds in turns\n`);
  console.log(
    '| heads/KV/dim | context | cache | without | with | overhead | 95 % of its median | error |',
  );
  console.log('| --- | --- | --- | --- | --- | --- | --- | --- |');
  const [, path, context = DEFAULT_CONTEXT] = given;
  const rows = given[0] === '--model' ? [measureModel(path, Number(context))] : measureCalls(given);
  let above = 0;
  for (const row of rows) {
    console.log(lineOf(row));
    if (row.overhead >= BAR) above++;
  }
  console.log(`\n${above} at ${100 * BAR} % or more`);
}

main();
