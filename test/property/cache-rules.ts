/** What the options of a program's cache come to, by the documents. */
import type { KvCacheOptions, LayerShape } from '../../lib';
import { ropeOf } from '../support/cache-contents';
import type { CacheRules, LayerRules } from '../support/mirror-layer';
import { isQuantised } from '../support/quantise';
import type { Plan } from './programs';

const { ceil, max, min } = Math;

/** What a layer with a window of its own gets where no slack is given. */
const LOCAL_SLACK = 256;

export function rulesOf(plan: Plan): CacheRules {
  const { recent, given, rotate, sinkTokens } = plan;
  const { k, v } = plan.dtype;
  const capacity = capacityOf(plan);
  const own = typeof rotate === 'object' ? rotate : { k: rotate, v: rotate };
  const windows = plan.layers.map((shape) => shape.window ?? plan.window ?? Infinity);
  // Layers without a window end every sequence at the cache's capacity.
  const longest = windows.includes(Infinity) ? capacity : Infinity;
  const layers = plan.layers.map((shape, i): LayerRules => {
    const headDim = shape.headDim ?? plan.headDim;
    const kvHeads = shape.kvHeads ?? plan.kvHeads;
    const sizes = { kvHeads, headDim, valueDim: shape.valueDim ?? plan.valueDim ?? headDim };
    const window = windows[i];
    if (window === Infinity) return { ...sizes, sinkTokens, window, capacity, slack: capacity };
    if (shape.window === undefined) {
      const slack = plan.slack ?? capacity - sinkTokens - window;
      return { ...sizes, sinkTokens, window, capacity, slack };
    }
    const slack = plan.slack ?? LOCAL_SLACK;
    const needed = sinkTokens + window + slack;
    if (longest > needed) return { ...sizes, sinkTokens, window, capacity: needed, slack };
    // No sequence outgrows it, nor, perhaps, the window.
    const seen = longest > sinkTokens + window ? window : Infinity;
    return { ...sizes, sinkTokens, window: seen, capacity: longest, slack: longest };
  });
  const quantised = isQuantised(k) || isQuantised(v);
  const largest = max(...layers.map((layer) => layer.capacity));
  return {
    layers,
    storage: {
      k,
      v,
      rotateKeys: own.k ?? k === 'q4',
      rotateValues: own.v ?? v === 'q4',
      turned: plan.positions === 'cache',
    },
    given,
    recent: quantised ? recent : 0,
    blockTokens: quantised ? 64 : min(64, ceil(largest / 16) * 16),
  };
}

function capacityOf({ window = 0, sinkTokens, slack = 0, room }: Plan): number {
  return max(1, sinkTokens + window + slack + room);
}

/** What the cache is asked for. */
export function optionsOf(plan: Plan, rules: CacheRules): KvCacheOptions {
  const { kvHeads, headDim, valueDim, dtype, rotate, window, sinkTokens, slack } = plan;
  const { sequences, prefixTokens, positions } = plan;
  const layers = plan.layers.map((shape, i): LayerShape => {
    return positions === 'cache' ? { ...shape, rope: ropeOf(rules.layers[i].headDim) } : shape;
  });
  return {
    ...{ layers, kvHeads, headDim, valueDim, dtype, rotate, window, sinkTokens, slack },
    ...{ sequences, prefixTokens, positions, recent: rules.recent, capacity: capacityOf(plan) },
  };
}
