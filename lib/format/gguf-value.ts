/** GGUF's kinds of metadata values, by name; an array's is that of its elements with brackets. */

/** In the order of their numbers in the file (gguf.h, enum gguf_type). */
const KINDS = [
  'u8',
  'i8',
  'u16',
  'i16',
  'u32',
  'i32',
  'f32',
  'bool',
  'string',
  'array',
  'u64',
  'i64',
  'f64',
] as const;

type Kind = (typeof KINDS)[number];
export type GgufScalarKind = Exclude<Kind, 'array'>;
export type GgufKind = GgufScalarKind | `${GgufScalarKind}[]`;

export type GgufScalar = number | bigint | boolean | string;
/** 64-bit integers are numbers where exact, else bigints. */
export type GgufValue = GgufScalar | GgufScalar[];

/** A value with its kind, so that what is read can be written again to the bit. */
export interface GgufEntry {
  kind: GgufKind;
  value: GgufValue;
}

/** Bytes of the kinds that have a fixed size. */
export const SCALAR_BYTES: Readonly<Record<Exclude<GgufScalarKind, 'string'>, number>> = {
  u8: 1,
  i8: 1,
  u16: 2,
  i16: 2,
  u32: 4,
  i32: 4,
  f32: 4,
  bool: 1,
  u64: 8,
  i64: 8,
  f64: 8,
};

/** Undefined for a number that stands for nothing. */
export function kindOf(code: number): Kind | undefined {
  return KINDS[code];
}

export function kindCode(kind: Kind): number {
  return KINDS.indexOf(kind);
}
