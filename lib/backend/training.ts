/** The backend with the operations of training; those that the native one lacks are taken from JavaScript. */
import { getBackend } from './index';
import type { Backend } from './contract';
import type { TrainingBackend } from './contract-training';
import { jsTraining } from './js/training';

let made: (Backend & TrainingBackend) | undefined;

/** @throws GqaError BACKEND_UNAVAILABLE as getBackend */
export function getTrainingBackend(): Backend & TrainingBackend {
  return (made ??= withTraining(getBackend()));
}

function withTraining(backend: Backend & Partial<TrainingBackend>): Backend & TrainingBackend {
  const lacking = Object.entries(jsTraining).filter(([name]) => !(name in backend));
  return lacking.length === 0
    ? (backend as Backend & TrainingBackend)
    : (Object.assign(Object.create(backend), Object.fromEntries(lacking)) as Backend &
        TrainingBackend);
}
