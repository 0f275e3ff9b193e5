/** plan(): what a model's weights and KV cache take, what fits, how fast it can be at best, and what other groups change. */
import { CACHE_DTYPES, type CacheDType, type WeightDType } from '../../core/dtype';
import { expectedError, GqaError } from '../../core/errors';
import { requireCacheDType, requirePerPart, type PerPart } from '../../core/per-part';
import { describe, requireFinite, requireInteger, requireOptions } from '../../core/validate';
import { cpuCaches, memoryInfo, type CacheLevel } from '../machine';
import { cacheExits, fitIn, MAX_CONTEXT, type CacheExit, type Fit } from './capacity';
import { groupTable, readDamage, type GroupRow, type MeasuredDamage } from './groups';
import { kvBytes, type KvBytes, type KvDType, type KvLoad } from './kv-bytes';
import { openModelShape, type PlannedModel } from './open';
import { countParameters, parametersRead, type ParameterCounts } from './parameters';
import { shapeFromConfig } from './architectures';
import { withKvHeads, type ModelShape } from './shape';
import { planWeights, requireWeightDType, type WeightPlan } from './weights';

export interface PlanOptions {
  /** A preset, a path (config.json, Hugging Face folder, GGUF file), or the object of a config.json. */
  model: string | Readonly<Record<string, unknown>>;
  /** Tokens of each sequence, or several such counts; default 4096, or what the model was made for where that is less. */
  context?: number | readonly number[];
  /** Sequences that live at once; default 1. */
  batch?: number;
  /** How keys and values are stored; default every way there is. */
  dtype?: PerPart<CacheDType> | readonly PerPart<CacheDType>[];
  /** How weights are stored; default as the checkpoint has them, else bf16. */
  weights?: WeightDType;
  /** First tokens that all sequences have in common; default 0. */
  sharedPrefix?: number;
  /** Plan as if every layer had so many KV heads. */
  kvHeads?: number;
  /** Bytes for weights and cache; default what this machine, and its cgroup, have left. */
  memory?: number;
  /** Bytes a second that can be read; without it there is no floor of the decode time. */
  bandwidth?: number;
  /** Damage reports of conversions of this model, as `gqa convert --report` writes them. */
  reports?: readonly unknown[];
}

/** One context and one dtype. */
export interface LoadPlan extends KvBytes, Fit {
  context: number;
  batch: number;
  /** Seconds a decode step cannot beat: (weights + keys and values) / bandwidth. */
  floorSeconds: number | null;
  /** Of all sequences together at that floor. */
  tokensPerSecond: number | null;
}

/** Where a cache of one dtype leaves the processors' caches. */
export interface ExitPlan {
  dtype: KvDType;
  exits: readonly CacheExit[];
}

export interface Plan {
  model: ModelShape;
  source: PlannedModel['source'];
  parameters: ParameterCounts;
  weights: WeightPlan;
  batch: number;
  sharedPrefix: number;
  /** Every context with every dtype. */
  loads: readonly LoadPlan[];
  /** At the first context and dtype. */
  groups: readonly GroupRow[];
  exits: readonly ExitPlan[];
  /** Of the reports; those of plans with different layers have no row among the groups. */
  damage: readonly MeasuredDamage[];
  machine: {
    /** Bytes that were planned with. */
    memory: number;
    bandwidth: number | null;
    caches: readonly CacheLevel[];
  };
}

const DEFAULT_CONTEXT = 4096;
/** Sequences: far beyond what any machine serves, and sizes stay exact. */
const MAX_BATCH = 2 ** 24;
/** Sizes of memory in bytes, and bandwidths. */
const MAX_BYTES = 2 ** 53 - 1;

function isList<T>(value: T | readonly T[]): value is readonly T[] {
  return Array.isArray(value);
}

function requireContexts(value: PlanOptions['context'], shape: ModelShape): number[] {
  const given = value ?? Math.min(DEFAULT_CONTEXT, shape.contextLength);
  const contexts = isList(given) ? given : [given];
  if (contexts.length === 0) {
    throw expectedError('INVALID_ARGUMENT', 'context', 'at least one', 'an empty list');
  }
  return contexts.map((context) => requireInteger(context, 'context', 1, MAX_CONTEXT));
}

function requireDTypes(value: PlanOptions['dtype']): KvDType[] {
  const given = value ?? CACHE_DTYPES;
  const dtypes = isList(given) ? given : [given];
  if (dtypes.length === 0) {
    throw expectedError('INVALID_ARGUMENT', 'dtype', 'at least one', 'an empty list');
  }
  return dtypes.map((dtype) => requirePerPart(dtype, 'dtype', requireCacheDType));
}

function requireSize(value: number, argument: string): number {
  requireFinite(value, argument);
  if (value > 0 && value <= MAX_BYTES) return value;
  throw expectedError('OUT_OF_RANGE', argument, 'a number of bytes above 0', describe(value));
}

function openModel(model: PlanOptions['model']): PlannedModel {
  if (typeof model === 'string') return openModelShape(model);
  requireOptions(model, 'model');
  return { shape: shapeFromConfig('config', 'model', model), source: 'config', stored: null };
}

/** @throws GqaError HEADS_NOT_DIVISIBLE */
function changeKvHeads(shape: ModelShape, kvHeads: number | undefined): ModelShape {
  if (kvHeads === undefined) return shape;
  requireInteger(kvHeads, 'kvHeads', 1);
  if (shape.heads % kvHeads === 0) return withKvHeads(shape, kvHeads);
  const expected = `a divisor of ${shape.heads} query heads`;
  throw expectedError('HEADS_NOT_DIVISIBLE', 'kvHeads', expected, String(kvHeads));
}

interface Settings {
  shape: ModelShape;
  weights: WeightPlan;
  batch: number;
  sharedPrefix: number;
  memory: number;
  bandwidth: number | null;
}

/** What a cache refuses it names in its own words; here they are the plan's. */
function withinReach<T>({ context, batch }: KvLoad, size: () => T): T {
  try {
    return size();
  } catch (error) {
    if (!(error instanceof GqaError) || error.code !== 'OUT_OF_RANGE') throw error;
    const received = `${batch} sequences of ${context} tokens`;
    throw expectedError('OUT_OF_RANGE', 'context', 'a cache that can be addressed', received);
  }
}

function planLoad(settings: Settings, context: number, dtype: KvDType): LoadPlan {
  const { shape, weights, batch, sharedPrefix, memory, bandwidth } = settings;
  const load = { context, batch, sharedPrefix };
  const bytes = withinReach(load, () => kvBytes(shape, dtype, load));
  const floorSeconds = bandwidth === null ? null : (weights.read + bytes.readBytes) / bandwidth;
  return {
    ...{ context, batch, ...bytes, ...fitIn(shape, dtype, load, weights.bytes, memory) },
    floorSeconds,
    tokensPerSecond: floorSeconds === null ? null : batch / floorSeconds,
  };
}

/**
 * Plans a model: sizes by the very arithmetic of KvCache, without allocating one.
 *
 * @throws GqaError INVALID_ARGUMENT (an unknown preset, with those that come close; a wrong type), INVALID_DTYPE,
 *   OUT_OF_RANGE (a size below 1 or beyond what can be addressed, a prefix longer than a context), NON_FINITE,
 *   HEADS_NOT_DIVISIBLE, INVALID_FILE (a broken config or report), UNSUPPORTED_MODEL.
 */
export function plan(options: PlanOptions): Plan {
  requireOptions(options, 'options');
  const { shape: original, source, stored } = openModel(options.model);
  const shape = changeKvHeads(original, options.kvHeads);
  const contexts = requireContexts(options.context, shape);
  const dtypes = requireDTypes(options.dtype);
  const batch = requireInteger(options.batch ?? 1, 'batch', 1, MAX_BATCH);
  const sharedPrefix = requireInteger(
    options.sharedPrefix ?? 0,
    'sharedPrefix',
    0,
    Math.min(...contexts),
  );
  const memory = requireSize(options.memory ?? memoryInfo().availableBytes, 'memory');
  const bandwidth =
    options.bandwidth === undefined ? null : requireSize(options.bandwidth, 'bandwidth');
  const dtype =
    options.weights === undefined ? null : requireWeightDType(options.weights, 'weights');
  const damage = (options.reports ?? []).map((report, i) =>
    readDamage(shape, `reports[${i}]`, report),
  );
  const parameters = countParameters(shape);
  const weights = planWeights(dtype, stored, parameters.total, parametersRead(shape, batch));
  const settings = { shape, weights, batch, sharedPrefix, memory, bandwidth };
  const caches = cpuCaches();
  return {
    ...{ model: shape, source, parameters, weights, batch, sharedPrefix },
    loads: contexts.flatMap((context) => dtypes.map((kv) => planLoad(settings, context, kv))),
    groups: groupTable({
      ...{ shape, dtype: dtypes[0], load: { context: contexts[0], batch, sharedPrefix } },
      ...{ bitsPerParameter: weights.bitsPerParameter, bandwidth, damage },
    }),
    exits: dtypes.map((kv) => ({ dtype: kv, exits: cacheExits(shape, kv, caches) })),
    damage,
    machine: { memory, bandwidth, caches },
  };
}
