/** The public exports of gqa, and nothing else. */
export * from './attention';
export { backend } from './backend';
export type { BackendInfo } from './backend/contract';
export { AttentionStats } from './core/attention-stats';
export type { AttentionStatsOptions } from './core/attention-stats';
export type { CacheDType, DType, FloatDType, TypedArrayOf } from './core/dtype';
export { GqaError } from './core/errors';
export type { GqaErrorCode, GqaErrorDetails } from './core/errors';
export { Tensor } from './core/tensor';
export { KvCache, KvLayer, KvSequence, KvStep } from './kv-cache/kv-cache';
export type {
  KeyRotation,
  KvCacheOptions,
  LayerShape,
  StepEntry,
  StepFeatures,
  StepOptions,
} from './kv-cache/kv-cache';
export { FileBlockStore } from './kv-cache/snapshot/file-store';
export { RedisBlockStore } from './kv-cache/snapshot/redis-store';
export type { RedisBlockStoreOptions, RedisClient } from './kv-cache/snapshot/redis-store';
export type { SaveResult } from './kv-cache/snapshot/saving';
export type { BlockStore } from './kv-cache/snapshot/store';
export * from './engine';
export * from './model';
export * from './nn';
export { createServer } from './server';
export type { GqaServer, ServerOptions } from './server';
export { plan, PRESETS } from './toolkit/plan';
export type {
  BuyBack,
  CacheExit,
  ExitPlan,
  Fit,
  GroupRow,
  KvBytes,
  KvDType,
  LoadPlan,
  MeasuredDamage,
  ModelShape,
  ParameterCounts,
  Plan,
  PlanOptions,
  PresetName,
  WeightPlan,
} from './toolkit/plan';
export { inspectModel } from './toolkit/observe/inspect-model';
export type { InspectOptions } from './toolkit/observe/inspect-model';
export type { InspectReport, LayerInspection } from './toolkit/observe/inspect';
export { Monitor } from './toolkit/observe/monitor';
export type {
  HeadReport,
  LayerReport,
  MonitorOptions,
  MonitorReport,
  SpreadAlarm,
} from './toolkit/observe/monitor';
export * from './toolkit/uptrain';
export { convertCheckpoint, damagePage } from './toolkit/convert';
export type {
  Change,
  ConvertOptions,
  DamageReport,
  LayerDamage,
  Method,
  TextUse,
} from './toolkit/convert';
