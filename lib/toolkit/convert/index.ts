/** Conversion of checkpoints to fewer KV heads. */
export { convertCheckpoint, type ConvertOptions } from './convert';
export { METHODS, type Method } from './methods';
export { damagePage } from '../report/page';
export type { Change, DamageReport, LayerDamage, TextUse } from '../report/damage';
