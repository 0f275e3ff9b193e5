/**
 * The bytes that a token of a vocabulary stands for, alone. Vocabularies spell bytes in two ways: byte-level ones have a
 * printable character for each byte (GPT-2's table), others have tokens <0x00> to <0xFF> and "\u2581" for a space.
 */
import { isObject } from './json-fields';

const UTF8 = new TextEncoder();
const BYTE_TOKEN = /^<0x([0-9A-Fa-f]{2})>$/;

export type TokenBytes = (token: string) => Uint8Array;

/** @param decoder tokenizer.json's */
export function tokenBytesOf(decoder: unknown): TokenBytes {
  const parts = partsOf(decoder);
  const has = (type: string): boolean => parts.some((part) => isObject(part) && part.type === type);
  if (has('ByteLevel')) return byteLevelBytes;
  const bytes = has('ByteFallback');
  const spaces = has('Metaspace') || has('Replace');
  return (token) => {
    const byte = bytes ? BYTE_TOKEN.exec(token) : null;
    if (byte !== null) return Uint8Array.of(parseInt(byte[1], 16));
    return UTF8.encode(spaces ? token.replaceAll('\u2581', ' ') : token);
  };
}

function partsOf(decoder: unknown): readonly unknown[] {
  if (!isObject(decoder)) return [];
  return Array.isArray(decoder.decoders) ? decoder.decoders.flatMap(partsOf) : [decoder];
}

/** Characters that stand for bytes: printable ones of Latin 1 for themselves, those from U+0100 on for the others. */
const BYTE_OF_CHARACTER = new Map<string, number>();
for (let byte = 0, next = 0x100; byte < 0x100; byte++) {
  const printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte < 0x100 && byte !== 0xad);
  BYTE_OF_CHARACTER.set(String.fromCodePoint(printable ? byte : next++), byte);
}

function byteLevelBytes(token: string): Uint8Array {
  const bytes: number[] = [];
  for (const character of token) {
    const byte = BYTE_OF_CHARACTER.get(character);
    if (byte === undefined) bytes.push(...UTF8.encode(character));
    else bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}
