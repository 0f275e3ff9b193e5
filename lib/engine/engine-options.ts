/** The options of an engine, checked once, with their defaults. */
import { expectedError } from '../core/errors';
import { requirePrecision, type Precision } from '../core/precision';
import { describe, requireInteger, requireOptions } from '../core/validate';
import { checkCacheSettings, type KvCacheSettings } from '../model/cache-settings';
import type { ModelConfig } from '../model/types';
import { checkWeightCache, type WeightCacheChoice } from '../model/weight-cache';
import { resolveSpeculation, type ResolvedSpeculation } from './speculation-options';
import type { EngineOptions, PrefixStoreOptions } from './types';

export interface ResolvedEngine {
  precision: Precision;
  cache: KvCacheSettings;
  /** What a request may have: the model's context, the caller's limit and the budget, whichever is least. */
  contextLength: number;
  name: string;
  maxSequences: number;
  budgetTokens: number;
  stepTokens: number;
  maxQueue: number;
  speculation: ResolvedSpeculation | null;
  store: PrefixStoreOptions | null;
  weightCache: WeightCacheChoice;
}

/** Token slots of a block. */
const BLOCK = 64;
/** What the budget defaults to: as much as all sequences can need, and no more bytes than these. */
const DEFAULT_BUDGET_BYTES = 2 ** 30;

/** @throws GqaError INVALID_ARGUMENT, INVALID_DTYPE, OUT_OF_RANGE, NON_FINITE */
export function resolveEngineOptions(
  options: EngineOptions,
  config: ModelConfig,
  defaultName: string,
): ResolvedEngine {
  requireOptions(options, 'options');
  const precision = requirePrecision(options.precision ?? 'exact');
  const cache = checkCacheSettings(options.kvCache ?? {}, precision, 'options.kvCache');
  const count = (
    name: 'contextLength' | 'maxSequences' | 'budgetTokens' | 'stepTokens' | 'maxQueue',
    otherwise: number,
    least: number,
    most?: number,
  ): number => requireInteger(options[name] ?? otherwise, `options.${name}`, least, most);
  const asked = count('contextLength', config.contextLength, 1, config.contextLength);
  const maxSequences = count('maxSequences', 16, 1, 256);
  const wholeBudget = count('budgetTokens', defaultBudget(config, maxSequences, asked), BLOCK);
  const budgetTokens = Math.floor(wholeBudget / BLOCK) * BLOCK;
  return {
    precision,
    cache,
    contextLength: cache.window === undefined ? Math.min(asked, budgetTokens) : asked,
    name: requireName(options.name ?? defaultName),
    maxSequences,
    budgetTokens,
    stepTokens: count('stepTokens', 256, maxSequences, 256),
    maxQueue: count('maxQueue', 256, 0),
    speculation: resolveSpeculation(options.speculation ?? false),
    store: requireStore(options.store),
    weightCache: checkWeightCache(options.weightCache, 'options.weightCache'),
  };
}

/** Tokens; the dtype of the cache is not looked at: the limit is one of order. */
function defaultBudget(config: ModelConfig, maxSequences: number, contextLength: number): number {
  const perToken = config.layerKvHeads.reduce((sum, heads) => sum + heads, 0) * config.headDim * 8;
  const affordable = Math.floor(DEFAULT_BUDGET_BYTES / perToken);
  const most = maxSequences * (contextLength + BLOCK);
  return Math.max(BLOCK, contextLength + BLOCK, Math.min(most, affordable));
}

function requireName(name: unknown): string {
  if (typeof name === 'string' && name !== '') return name;
  throw expectedError('INVALID_ARGUMENT', 'options.name', 'a text', describe(name));
}

function requireStore(store: PrefixStoreOptions | undefined): PrefixStoreOptions | null {
  if (store === undefined) return null;
  requireOptions(store, 'options.store');
  const { url, ttlSeconds, timeoutMs } = store;
  if (typeof url !== 'string' || url === '') {
    throw expectedError('INVALID_ARGUMENT', 'options.store.url', 'a URL', describe(url));
  }
  const checked: PrefixStoreOptions = { url };
  if (ttlSeconds !== undefined) {
    checked.ttlSeconds = requireInteger(ttlSeconds, 'options.store.ttlSeconds', 1);
  }
  if (timeoutMs !== undefined) {
    checked.timeoutMs = requireInteger(timeoutMs, 'options.store.timeoutMs', 1);
  }
  return checked;
}
