/** Checkpoints in and out, for the toolkit: see types.ts. */
export { createSink } from './sink';
export { openSource } from './source';
