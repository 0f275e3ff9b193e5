/** Just enough of protobuf's wire format to write an ONNX model: varints and whatever has a length. */

export type Field = Buffer;

const VARINT = 0;
const LENGTH_DELIMITED = 2;

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  while (rest >= 0x80) {
    bytes.push((rest % 0x80) | 0x80);
    rest = Math.floor(rest / 0x80);
  }
  return Buffer.from([...bytes, rest]);
}

function tag(field: number, wireType: number): Buffer {
  return varint(field * 8 + wireType);
}

/** A whole number >= 0. */
export function integer(field: number, value: number): Field {
  return Buffer.concat([tag(field, VARINT), varint(value)]);
}

function delimited(field: number, bytes: Buffer): Field {
  return Buffer.concat([tag(field, LENGTH_DELIMITED), varint(bytes.length), bytes]);
}

export function text(field: number, value: string): Field {
  return delimited(field, Buffer.from(value));
}

export function message(field: number, fields: Field[]): Field {
  return delimited(field, Buffer.concat(fields));
}
