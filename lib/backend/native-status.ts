/** What a call of the addon leaves behind, as errors. */
import { GqaError } from '../core/errors';
import { Result, Status } from './parameters';

export function checkStatus(parameters: Float64Array, operation: string): void {
  const status = parameters[Result.status] as Status;
  if (status !== Status.ok) throw statusError(operation, status, parameters[Result.argument]);
}

/** The addon checks again what core/validate.ts has checked, so that nothing can make it read out of bounds. */
export function statusError(operation: string, status: Status, argument: number): GqaError {
  if (status === Status.outOfMemory) {
    return new GqaError('OUT_OF_MEMORY', `Not enough memory for ${operation}`);
  }
  const code = status === Status.tooSmall ? 'BUFFER_TOO_SMALL' : 'INTERNAL';
  return new GqaError(code, `The native ${operation} refused its argument ${argument + 1}`);
}
