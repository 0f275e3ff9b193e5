/** ggml's tensor types: how many values a block holds, in how many bytes, and how to widen it. */
import type { BlockDType, FloatDType } from '../core/dtype';
import * as dequant from './dequant';

export interface GgmlType {
  name: string;
  /** Values of a block; rows are whole blocks. */
  blockSize: number;
  blockBytes: number;
  /** Kept as it is stored. */
  dtype?: FloatDType;
  /** What layers that multiply these blocks as they are call them. */
  blocks?: BlockDType;
  /** Widened to f32. A type with neither is known by its size only. */
  dequantize?: dequant.Dequantize;
}

function plain(name: string, bytes: number, dtype?: FloatDType): GgmlType {
  return { name, blockSize: 1, blockBytes: bytes, dtype };
}

function quantised(
  name: string,
  blockSize: number,
  blockBytes: number,
  dequantize?: dequant.Dequantize,
  blocks?: BlockDType,
): GgmlType {
  return { name, blockSize, blockBytes, dequantize, blocks };
}

/** By the type's number in the file (ggml.h, enum ggml_type). */
export const GGML_TYPES: ReadonlyMap<number, GgmlType> = new Map([
  [0, plain('F32', 4, 'f32')],
  [1, plain('F16', 2, 'f16')],
  [2, quantised('Q4_0', 32, 18, dequant.dequantizeQ4_0, 'q4_0')],
  [3, quantised('Q4_1', 32, 20, dequant.dequantizeQ4_1, 'q4_1')],
  [6, quantised('Q5_0', 32, 22, dequant.dequantizeQ5_0)],
  [7, quantised('Q5_1', 32, 24, dequant.dequantizeQ5_1)],
  [8, quantised('Q8_0', 32, 34, dequant.dequantizeQ8_0, 'q8_0')],
  [9, quantised('Q8_1', 32, 36)],
  [10, quantised('Q2_K', 256, 84, dequant.dequantizeQ2_K)],
  [11, quantised('Q3_K', 256, 110, dequant.dequantizeQ3_K)],
  [12, quantised('Q4_K', 256, 144, dequant.dequantizeQ4_K)],
  [13, quantised('Q5_K', 256, 176, dequant.dequantizeQ5_K)],
  [14, quantised('Q6_K', 256, 210, dequant.dequantizeQ6_K)],
  [15, quantised('Q8_K', 256, 292)],
  [16, quantised('IQ2_XXS', 256, 66)],
  [17, quantised('IQ2_XS', 256, 74)],
  [18, quantised('IQ3_XXS', 256, 98)],
  [19, quantised('IQ1_S', 256, 50)],
  [20, quantised('IQ4_NL', 32, 18)],
  [21, quantised('IQ3_S', 256, 110)],
  [22, quantised('IQ2_S', 256, 82)],
  [23, quantised('IQ4_XS', 256, 136)],
  [24, plain('I8', 1)],
  [25, plain('I16', 2)],
  [26, plain('I32', 4)],
  [27, plain('I64', 8)],
  [28, plain('F64', 8)],
  [29, quantised('IQ1_M', 256, 56)],
  [30, plain('BF16', 2, 'bf16')],
  [34, quantised('TQ1_0', 256, 54)],
  [35, quantised('TQ2_0', 256, 66)],
  [39, quantised('MXFP4', 32, 17, dequant.dequantizeMXFP4)],
]);

const FLOAT_NAMES: Readonly<Record<FloatDType, string>> = { f32: 'F32', f16: 'F16', bf16: 'BF16' };

export function ggmlTypeName(dtype: FloatDType): string {
  return FLOAT_NAMES[dtype];
}

const CODES: ReadonlyMap<string, number> = new Map(
  Array.from(GGML_TYPES, ([code, { name }]) => [name, code]),
);

/** The number in the file of a type in the table, by its name. */
export function ggmlTypeCode(name: string): number {
  return CODES.get(name)!;
}
