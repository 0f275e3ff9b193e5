/** Every stable error code of the package, with what it means. Documented in README.md. */
export type GqaErrorCode =
  | 'INVALID_ARGUMENT' // wrong type, or a value outside its set
  | 'INVALID_RANK' // a tensor with the wrong number of dimensions
  | 'INVALID_SHAPE' // dimensions that do not fit each other
  | 'INVALID_DTYPE' // a dtype this operation does not take
  | 'HEADS_NOT_DIVISIBLE' // query heads are not a multiple of KV heads
  | 'NON_FINITE' // a number that must be finite is not
  | 'OUT_OF_RANGE' // a number outside its range, sizes beyond what can be addressed included
  | 'BUFFER_TOO_SMALL' // fewer elements than the shape needs
  | 'BUFFER_DETACHED' // the memory behind a view was transferred away
  | 'OVERLAP' // an output that shares memory with an input
  | 'DISPOSED' // a handle used after dispose()
  | 'BUSY' // a handle that an async call still uses
  | 'CAPACITY_EXCEEDED' // a cache without a window is full, or no sequence or block is free
  | 'POSITION_EVICTED' // a row needs keys that the window has passed
  | 'SLACK_EXCEEDED' // a rollback further than the declared slack
  | 'LAYERS_UNEVEN' // the layers of a cache did not advance together
  | 'OUT_OF_MEMORY' // an allocation failed
  | 'BACKEND_UNAVAILABLE' // a forced backend, instruction set or thread count cannot be had
  | 'INVALID_SNAPSHOT' // bytes that are no snapshot of this version, or damaged ones
  | 'SNAPSHOT_MISMATCH' // a sound snapshot of another layout, geometry or model
  | 'STORE_FAILED' // a store, file or stream of snapshots that fails
  | 'INVALID_FILE' // a model file that is truncated, inconsistent or hostile
  | 'UNSUPPORTED_MODEL' // an architecture, tensor type or feature not implemented
  | 'OUTPUT_EXISTS' // an output that is there already, and was not to be replaced
  | 'WRITE_FAILED' // a file that cannot be written: no space, no permission
  | 'NO_TOKENIZER' // text given to a model without tokenizer files
  | 'INVALID_TEXT' // a text file that is empty, no UTF-8, or too short to predict anything
  // a file or folder that would be replaced
  // an output that cannot be written: no space, no permission
  | 'RESUME_MISMATCH' // a run to be resumed that was begun with other settings, model or text
  | 'EMPTY_PROMPT' // nothing to continue
  | 'CONTEXT_EXCEEDED' // more tokens than the model or the cache holds
  | 'QUEUE_FULL' // as many requests wait as may
  | 'CANCELLED' // an answer whose reader left it before its end
  | 'INTERNAL'; // a broken invariant: please report it

export interface GqaErrorDetails {
  /** The argument at fault, as the caller names it, e.g. `k` or `options.window`. */
  argument?: string;
  /** What would have been accepted. */
  expected?: string;
  /** What came. */
  received?: string;
  cause?: unknown;
}

/** The one error class of the package; `code` is stable, the message is for people. */
export class GqaError extends Error {
  override readonly name = 'GqaError';
  readonly argument: string | undefined;
  readonly expected: string | undefined;
  readonly received: string | undefined;

  constructor(
    readonly code: GqaErrorCode,
    message: string,
    details: GqaErrorDetails = {},
  ) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.argument = details.argument;
    this.expected = details.expected;
    this.received = details.received;
  }
}

/** Builds the usual "Expected X for y but received z". */
export function expectedError(
  code: GqaErrorCode,
  argument: string,
  expected: string,
  received: string,
): GqaError {
  return new GqaError(code, `Expected ${expected} for ${argument} but received ${received}`, {
    argument,
    expected,
    received,
  });
}
