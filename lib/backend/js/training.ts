/** The training operations of the JS backend. */
import type { TrainingBackend } from '../contract-training';
import { attendBackward } from './attend-backward';
import { rmsNormBackward, swigluBackward, transpose } from './backward';
import { crossEntropy } from './loss';
import { adamW, sumSquares } from './optimiser';

export const jsTraining: TrainingBackend = {
  attendBackward,
  transpose,
  rmsNormBackward,
  swigluBackward,
  crossEntropy,
  adamW,
  sumSquares,
};
