/** Typed access to an object parsed from JSON: a missing or null field takes its default, a wrong one is an error. */
import { GqaError } from '../core/errors';
import { describe } from '../core/validate';

export type JsonObject = Record<string, unknown>;

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export class JsonFields {
  private readonly fields: JsonObject;

  /**
   * `names`: what the file calls fields that are asked for by another name.
   * @throws GqaError INVALID_FILE where value is no object.
   */
  constructor(
    private readonly source: string,
    value: unknown,
    private readonly names: Readonly<Record<string, string>> = {},
  ) {
    if (!isObject(value)) throw this.wrong('the whole file', 'an object', value);
    this.fields = value;
  }

  /** The same file under more names, `{ ours: its }`. */
  renamed(names: Readonly<Record<string, string>>): JsonFields {
    return new JsonFields(this.source, this.fields, { ...this.names, ...names });
  }

  /** The same with these fields in place of its own. */
  with(fields: JsonObject): JsonFields {
    const names = Object.entries(this.names).filter(([name]) => !Object.hasOwn(fields, name));
    return new JsonFields(this.source, { ...this.fields, ...fields }, Object.fromEntries(names));
  }

  /** The same with these fields where it has none. */
  withDefaults(fields: JsonObject): JsonFields {
    return new JsonFields(this.source, { ...fields, ...this.fields }, this.names);
  }

  has(name: string): boolean {
    return this.raw(name) !== undefined;
  }

  raw(name: string): unknown {
    const stored = this.stored(name);
    return Object.hasOwn(this.fields, stored) ? (this.fields[stored] ?? undefined) : undefined;
  }

  /** An integer in [min, 2^31). */
  integer(name: string, fallback?: number, min = 1): number {
    const value = this.raw(name) ?? fallback;
    if (!Number.isInteger(value) || (value as number) < min || (value as number) >= 2 ** 31) {
      throw this.wrong(name, `an integer of at least ${min}`, value);
    }
    return value as number;
  }

  /** A finite number above 0. */
  positive(name: string, fallback?: number): number {
    const value = this.raw(name) ?? fallback;
    if (typeof value !== 'number' || !Number.isFinite(value) || value <= 0) {
      throw this.wrong(name, 'a positive number', value);
    }
    return value;
  }

  flag(name: string, fallback: boolean): boolean {
    const value = this.raw(name) ?? fallback;
    if (typeof value !== 'boolean') throw this.wrong(name, 'true or false', value);
    return value;
  }

  text(name: string): string | null {
    const value = this.raw(name) ?? null;
    if (value !== null && typeof value !== 'string') throw this.wrong(name, 'text', value);
    return value;
  }

  /** An object; empty where the field is missing. */
  object(name: string): JsonFields {
    return new JsonFields(`${this.source}: ${name}`, this.raw(name) ?? {});
  }

  /** Token ids from a number or a list; negative ones, which some files use for "none", are left out. */
  ids(name: string): number[] {
    const value = this.raw(name) ?? [];
    const ids: unknown[] = Array.isArray(value) ? value : [value];
    if (!ids.every(Number.isSafeInteger)) throw this.wrong(name, 'token ids', value);
    return (ids as number[]).filter((id) => id >= 0);
  }

  private stored(name: string): string {
    return Object.hasOwn(this.names, name) ? this.names[name] : name;
  }

  wrong(name: string, expected: string, value: unknown): GqaError {
    const argument = this.stored(name);
    const received = describe(value);
    return new GqaError(
      'INVALID_FILE',
      `Expected ${expected} for ${argument} in ${this.source} but found ${received}`,
      { argument, expected, received },
    );
  }
}

export function unsupported(argument: string, expected: string, received: string): GqaError {
  return new GqaError(
    'UNSUPPORTED_MODEL',
    `Not supported: ${argument} is ${received}; supported: ${expected}`,
    { argument, expected, received },
  );
}
