/** The backend with the operations of training, which every backend has. */
export { getBackend as getTrainingBackend } from './index';
