/** What the subcommands of gqa bench share: options, the choice of threads, writing the report. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Option, type Command } from 'commander';
import type { Precision } from '../../core/precision';
import { FORMATS, writeReport, type Format, type Report } from '../bench/report';
import { decimal, integer, listOf, oneOf } from '../options';
import { print } from '../terminal';

export interface ReportOptions {
  format: Format;
  json?: boolean;
  out?: string;
}

export interface CommonOptions<D> extends ReportOptions {
  dtype: D[];
  threads?: number[];
  seconds: number;
}

/** `--dtype` as a subcommand means it: its choices, in the order in which they are swept, and its default list. */
export interface DTypeChoice {
  meaning: string;
  choices: readonly string[];
  /** Where it is not given: these, or all choices; null leaves the option undefined. */
  defaults?: string | null;
}

/** A comma list of items, with its default as the user would write it. */
export function listOption<T>(
  flags: string,
  meaning: string,
  item: (text: string) => T,
  defaults?: string,
): Option {
  const parse = listOf(item);
  const option = new Option(flags, meaning).argParser(parse);
  return defaults === undefined ? option : option.default(parse(defaults), defaults);
}

export function addCommonOptions(
  command: Command,
  { meaning, choices, defaults = choices.join(',') }: DTypeChoice,
): Command {
  command
    .addOption(listOption('--dtype <list>', meaning, oneOf(...choices), defaults ?? undefined))
    .addOption(
      listOption(
        '--threads <list>',
        'threads that share a call (default: 1 and all)',
        integer({ min: 1 }),
      ),
    )
    .option('--seconds <s>', 'timing of each case', decimal({ above: 0, max: 600 }), 0.6);
  return addReportOptions(command);
}

export function addReportOptions(command: Command): Command {
  // The only option with the type of a choice: commander lists the choices in the help.
  const format = new Option('--format <format>', 'form of the table on stdout');
  return command
    .addOption(format.choices(FORMATS).default('md'))
    .option('--json', 'the same as --format json')
    .option('--out <folder>', 'writes the table there too, in every form');
}

/** The asked-for thread counts, or 1 and all; a count beyond all is a usage error. */
export function chosenThreads(
  command: Command,
  asked: number[] | undefined,
  all: number,
): number[] {
  const beyond = asked?.find((threads) => threads > all);
  if (beyond !== undefined) {
    command.error(
      `error: option '--threads <list>' argument '${beyond}' is invalid. ` +
        `Expected at most ${all}, the threads of this process (GQA_THREADS raises or lowers them).`,
    );
  }
  return asked ?? [...new Set([1, all])];
}

export const precisionOf = oneOf<Precision>('exact', 'fast');

/** To stdout in the chosen form, and to `out` in every form, each file named after the benchmark. */
export async function printReport(
  report: Report,
  { format, json, out }: ReportOptions,
): Promise<void> {
  await print(writeReport(report, json ? 'json' : format));
  if (out === undefined) return;
  mkdirSync(out, { recursive: true });
  for (const form of FORMATS) {
    writeFileSync(join(out, `${report.bench}.${form}`), writeReport(report, form));
  }
}
