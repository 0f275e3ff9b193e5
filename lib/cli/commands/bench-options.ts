/** What the subcommands of gqa bench share: options, the choice of threads, writing the report. */
import { Option, type Command } from 'commander';
import type { FloatDType } from '../../core/dtype';
import { writeReport, type Format, type Report } from '../bench/report';
import { decimal, integer, listOf, oneOf } from '../options';
import { print } from '../terminal';

export interface CommonOptions {
  dtype: FloatDType[];
  threads?: number[];
  seconds: number;
  format: Format;
  json?: boolean;
}

export const floatDType = oneOf<FloatDType>('f32', 'f16', 'bf16');

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
  dtypeMeaning: string,
  dtypes = 'f32,f16,bf16',
): Command {
  return command
    .addOption(listOption('--dtype <list>', dtypeMeaning, floatDType, dtypes))
    .addOption(
      listOption(
        '--threads <list>',
        'threads that share a call (default: 1 and all)',
        integer({ min: 1 }),
      ),
    )
    .option('--seconds <s>', 'timing of each case', decimal({ above: 0, max: 600 }), 0.6)
    .addOption(formatOption())
    .option('--json', 'the same as --format json');
}

/** The only option with the type of a choice: commander lists the choices in the help. */
function formatOption(): Option {
  return new Option('--format <format>', 'form of the table on stdout')
    .choices(['md', 'csv', 'json'])
    .default('md');
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

export function printReport(
  report: Report,
  { format, json }: { format: Format; json?: boolean },
): Promise<void> {
  return print(writeReport(report, json ? 'json' : format));
}
