/** The planner: what a model and its KV cache take, before there is either. */
export type { CacheExit, Fit } from './capacity';
export { explain, perTokenStep, TOPICS } from './explain';
export type { Explanation } from './explain';
export type { GroupRow, MeasuredDamage } from './groups';
export type { KvBytes, KvDType } from './kv-bytes';
export type { BuyBack, ParameterCounts } from './parameters';
export { plan } from './plan';
export type { ExitPlan, LoadPlan, Plan, PlanOptions } from './plan';
export { PRESETS } from './presets';
export type { PresetName } from './presets';
export type { ModelShape } from './shape';
export { WEIGHT_DTYPES } from './weights';
export type { WeightPlan } from './weights';
