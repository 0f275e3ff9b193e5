/**
 * Options that several commands have, and parsers of option values, for commander's `argParser`. Each throws InvalidArgumentError with what was expected;
 * commander adds the flag's name and the value that came, and exits as a usage error.
 */
import { InvalidArgumentError, type Command } from 'commander';
import { CACHE_DTYPES, isCacheDType, type CacheDType } from '../core/dtype';

/** Query heads / KV heads / head dim, as `--heads 32/8/128` gives them. */
export interface HeadShape {
  heads: number;
  kvHeads: number;
  headDim: number;
}

/** How a cache stores keys and values, as `--kv-dtype q8` gives it for both, or `--kv-dtype q8/q4` for each. */
export interface CacheDTypes {
  k: CacheDType;
  v: CacheDType;
}

/** Rows x columns of a weight matrix: output features x input features, as `--shape 4096x11008` gives them. */
export interface MatrixShape {
  rows: number;
  columns: number;
}

interface Range {
  min?: number;
  max?: number;
  /** The minimum itself is not allowed. */
  above?: number;
}

function describeRange(kind: string, { min, max, above }: Range): string {
  const bounds = [
    min === undefined ? '' : `>= ${min}`,
    above === undefined ? '' : `> ${above}`,
    max === undefined ? '' : `<= ${max}`,
  ].filter((bound) => bound !== '');
  return `Expected ${kind}${bounds.length > 0 ? ` ${bounds.join(' and ')}` : ''}.`;
}

function inRange(value: number, { min, max, above }: Range): boolean {
  return (
    (min === undefined || value >= min) &&
    (max === undefined || value <= max) &&
    (above === undefined || value > above)
  );
}

export function integer(range: Range = {}): (text: string) => number {
  return (text) => {
    const value = /^[+-]?\d+$/.test(text) ? Number(text) : NaN;
    if (!Number.isSafeInteger(value) || !inRange(value, range)) {
      throw new InvalidArgumentError(describeRange('a whole number', range));
    }
    return value;
  };
}

export function decimal(range: Range = {}): (text: string) => number {
  return (text) => {
    const value = text.trim() === '' ? NaN : Number(text);
    if (!Number.isFinite(value) || !inRange(value, range)) {
      throw new InvalidArgumentError(describeRange('a number', range));
    }
    return value;
  };
}

export function oneOf<T extends string>(...choices: T[]): (text: string) => T {
  return (text) => {
    const found = choices.find((choice) => choice === text);
    if (found === undefined) {
      throw new InvalidArgumentError(`Expected one of ${choices.join(', ')}.`);
    }
    return found;
  };
}

/** A comma list of items; repeats are dropped, an empty item is an error of the item's own parser. */
export function listOf<T>(item: (text: string) => T): (text: string) => T[] {
  return (text) => {
    const parts = new Set(text.split(',').map((part) => part.trim()));
    return [...parts].map(item);
  };
}

/** Collects a repeatable option. */
export function collect(text: string, previous: string[] | undefined): string[] {
  return [...(previous ?? []), text];
}

export function headShape(text: string): HeadShape {
  const match = /^(\d+)\/(\d+)\/(\d+)$/.exec(text);
  const [heads, kvHeads, headDim] = match === null ? [0, 0, 0] : match.slice(1).map(Number);
  if (![heads, kvHeads, headDim].every((n) => Number.isSafeInteger(n) && n > 0)) {
    throw new InvalidArgumentError('Expected query heads / KV heads / head dim, such as 32/8/128.');
  }
  if (heads % kvHeads !== 0) {
    throw new InvalidArgumentError(
      `Expected query heads to be a multiple of KV heads, but ${heads} is not one of ${kvHeads}.`,
    );
  }
  return { heads, kvHeads, headDim };
}

export function cacheDTypes(text: string): CacheDTypes {
  const parts = text.split('/');
  const [k, v = k] = parts;
  if (parts.length > 2 || !isCacheDType(k) || !isCacheDType(v)) {
    throw new InvalidArgumentError(
      `Expected one of ${CACHE_DTYPES.join(', ')}, or two as K/V, such as q8/q4.`,
    );
  }
  return { k, v };
}

export function matrixShape(text: string): MatrixShape {
  const match = /^(\d+)x(\d+)$/.exec(text);
  const [rows, columns] = match === null ? [0, 0] : match.slice(1).map(Number);
  if (![rows, columns].every((n) => Number.isSafeInteger(n) && n > 0)) {
    throw new InvalidArgumentError(
      'Expected output features x input features, such as 4096x11008.',
    );
  }
  return { rows, columns };
}

export function formatHeads({ heads, kvHeads, headDim }: HeadShape): string {
  return `${heads}/${kvHeads}/${headDim}`;
}

export function formatMatrix({ rows, columns }: MatrixShape): string {
  return `${rows}x${columns}`;
}

/** As loadModel takes it; undefined where neither flag is given. */
export interface WeightCacheOption {
  weightCache?: string | false;
}

/** --weight-cache and --no-weight-cache, for every command that loads a model to run it. */
export function addWeightCache(command: Command): Command {
  return command
    .option(
      '--weight-cache <folder>',
      'where packed weights are kept and shared (GQA_CACHE_DIR, or gqa in ~/.cache)',
    )
    .option('--no-weight-cache', 'pack weights into memory of this process');
}
