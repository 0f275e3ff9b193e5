/**
 * What GGUF says of an architecture, told as Hugging Face does: metadata as config.json's fields, tensors by their names
 * and in their layouts. So a file of arch/ knows nothing of GGUF.
 */
import type { LoadedTensor } from '../../format/file';
import type { JsonObject } from '../json-fields';
import type { GgufMetadata } from './metadata';

export interface GgufArchitecture {
  /** config.json of the model. @throws GqaError INVALID_FILE, UNSUPPORTED_MODEL */
  configJson(metadata: GgufMetadata): JsonObject;
  /** What of the file makes the tensor of this name; null where GGUF has no word for it. */
  locate(name: string, metadata: GgufMetadata): StoredPart | Composition | null;
}

/**
 * Rows of a stored tensor. A vector has a row an element, a stack of matrices has those of all of them. Rows are whole
 * blocks in every quantised type, so that they can be taken as they are stored.
 */
export interface StoredPart {
  /** The name in the file. */
  stored: string;
  /** Rows from here on, as many as are asked for; default: the tensor as a whole. */
  first?: number;
  /** Which row, counted from `first`, is row `row` of what is asked for; default: the same. */
  rowOf?: (row: number) => number;
  /** Added to every value. */
  add?: number;
}

/** A tensor made of several. */
export interface Composition {
  stored: readonly string[];
  /** The shape that each of them must have for a tensor of `shape`. */
  shapeOf(shape: readonly number[]): readonly number[];
  /** Takes the stored tensors in their order. */
  compose(tensors: readonly LoadedTensor[]): LoadedTensor;
}
