/**
 * What the attention of a model does while it runs: AttentionStats of every layer, summed up over steps. For each query
 * head mean, least and most of normalised entropy, sink mass, recent mass and effective context, and the maximum logit;
 * for each group the spread of its heads' mean entropies, with an alarm.
 *
 *   const monitor = new Monitor({ layers: 24, heads: 14, kvHeads: 2 });
 *   attention(q, layer, { stats: monitor.layers[i] });
 *   monitor.record(i);                                   // after each call
 *   response.end(await monitor.prometheus());
 */
import type { Registry } from 'prom-client';
import { AttentionStats } from '../../core/attention-stats';
import { expectedError } from '../../core/errors';
import { describe, requireFinite, requireInteger, requireOptions } from '../../core/validate';
import type { AttentionObserver } from '../../model/types';
import { AVERAGED, LayerAggregate, type Averaged, type Summary } from './layer-aggregate';
import { addMetrics, newRegistry } from './prometheus';

export interface MonitorOptions {
  layers: number;
  /** Query heads of each layer. */
  heads: number;
  /** Of all layers, or one number for each. */
  kvHeads: number | readonly number[];
  /** See AttentionStats. */
  sinkTokens?: number;
  recentTokens?: number;
  /**
   * Spread of mean normalised entropies within a group above which onAlarm is called. Default 0.3, which is what write-ups
   * use; no measurement that we know of backs it.
   */
  spreadAlarm?: number;
  /** Called once each time that a group's spread comes to lie above spreadAlarm. */
  onAlarm?: (alarm: SpreadAlarm) => void;
}

export interface SpreadAlarm {
  layer: number;
  /** The KV head whose query heads disagree. */
  group: number;
  spread: number;
}

export type HeadReport = Record<Averaged, Summary> & {
  head: number;
  rows: number;
  maxLogit: number;
};

export interface LayerReport {
  layer: number;
  heads: HeadReport[];
  groups: { group: number; spread: number; alarm: boolean }[];
}

export interface MonitorReport {
  sinkTokens: number;
  recentTokens: number;
  spreadAlarm: number;
  /** Groups that came above spreadAlarm so far. */
  alarms: number;
  layers: LayerReport[];
}

export class Monitor implements AttentionObserver {
  /** One for each layer: what its attention calls are given as `stats`. */
  readonly layers: readonly AttentionStats[];
  readonly spreadAlarm: number;
  /** Groups that came above spreadAlarm so far. */
  alarms = 0;
  /** @internal */
  readonly aggregates: readonly LayerAggregate[];
  private readonly alarmed: readonly Uint8Array[];
  private readonly onAlarm: ((alarm: SpreadAlarm) => void) | undefined;
  private registry: Registry | null = null;

  /** @throws GqaError INVALID_ARGUMENT, INVALID_SHAPE, OUT_OF_RANGE, NON_FINITE, HEADS_NOT_DIVISIBLE */
  constructor(options: MonitorOptions) {
    requireOptions(options, 'options');
    const { sinkTokens, recentTokens, spreadAlarm = 0.3, onAlarm } = options;
    const layers = requireInteger(options.layers, 'options.layers', 1);
    const heads = requireInteger(options.heads, 'options.heads', 1);
    const groups = readGroups(options.kvHeads, layers, heads);
    this.spreadAlarm = requireFinite(spreadAlarm, 'options.spreadAlarm');
    if (onAlarm !== undefined && typeof onAlarm !== 'function') {
      throw expectedError('INVALID_ARGUMENT', 'options.onAlarm', 'a function', describe(onAlarm));
    }
    this.onAlarm = onAlarm;
    this.layers = groups.map(() => new AttentionStats({ sinkTokens, recentTokens }));
    this.aggregates = groups.map((kvHeads) => new LayerAggregate(heads, kvHeads));
    this.alarmed = groups.map((kvHeads) => new Uint8Array(kvHeads));
  }

  /**
   * Adds what `layers[layer]` holds, every row of its latest call.
   * @throws GqaError OUT_OF_RANGE, INVALID_SHAPE (a call of other heads), DISPOSED, BUSY
   */
  record(layer: number): void {
    const index = requireInteger(layer, 'layer', 0, this.layers.length - 1);
    const aggregate = this.aggregates[index];
    const heads = this.layers[index].shape[2];
    if (heads !== aggregate.heads) {
      const expected = `statistics of ${aggregate.heads} heads`;
      throw expectedError('INVALID_SHAPE', `layers[${index}]`, expected, String(heads));
    }
    aggregate.add(this.layers[index]);
    this.watchSpread(index);
  }

  /** Of one layer's groups, by KV head: largest less smallest mean normalised entropy of the query heads. */
  spread(layer: number): number[] {
    const { [layer]: aggregate } = this.aggregates;
    return Array.from({ length: aggregate.kvHeads }, (_, group) => aggregate.spread(group));
  }

  toJSON(): MonitorReport {
    const { sinkTokens, recentTokens } = this.layers[0];
    const layers = this.aggregates.map((_, layer) => this.layerReport(layer));
    const { spreadAlarm, alarms } = this;
    return { sinkTokens, recentTokens, spreadAlarm, alarms, layers };
  }

  /**
   * Adds gauges that read this monitor, named `prefix...`, to a registry of prom-client: once for a registry and prefix.
   */
  register(registry: Registry, prefix = 'gqa_attention_'): void {
    addMetrics(this, registry, prefix);
  }

  /** The metrics in Prometheus' text format, from a registry of the monitor's own. */
  async prometheus(): Promise<string> {
    if (this.registry === null) {
      this.registry = newRegistry();
      this.register(this.registry);
    }
    return this.registry.metrics();
  }

  /** Forgets everything recorded, alarms too. */
  reset(): void {
    this.alarms = 0;
    for (const aggregate of this.aggregates) aggregate.reset();
    for (const flags of this.alarmed) flags.fill(0);
  }

  private watchSpread(layer: number): void {
    const aggregate = this.aggregates[layer];
    const flags = this.alarmed[layer];
    for (let group = 0; group < flags.length; group++) {
      const spread = aggregate.spread(group);
      const above = spread > this.spreadAlarm ? 1 : 0;
      const crossed = above > flags[group];
      flags[group] = above;
      if (!crossed) continue;
      this.alarms++;
      this.onAlarm?.({ layer, group, spread });
    }
  }

  layerReport(layer: number): LayerReport {
    const aggregate = this.aggregates[layer];
    const heads = Array.from({ length: aggregate.heads }, (_, head): HeadReport => {
      const summaries = AVERAGED.map((name) => [name, aggregate.summary(name, head)]);
      return {
        head,
        rows: aggregate.rows[head],
        maxLogit: aggregate.maxLogit[head],
        ...(Object.fromEntries(summaries) as Record<Averaged, Summary>),
      };
    });
    const groups = this.spread(layer).map((spread, group) => {
      return { group, spread, alarm: this.alarmed[layer][group] === 1 };
    });
    return { layer, heads, groups };
  }
}

/** KV heads of each layer. */
function readGroups(
  kvHeads: MonitorOptions['kvHeads'],
  layers: number,
  heads: number,
): readonly number[] {
  const given = Array.isArray(kvHeads) ? kvHeads : new Array<unknown>(layers).fill(kvHeads);
  if (given.length !== layers) {
    const expected = `one number for each of ${layers} layers`;
    throw expectedError('INVALID_SHAPE', 'options.kvHeads', expected, String(given.length));
  }
  return given.map((value: unknown) => {
    const count = requireInteger(value, 'options.kvHeads', 1);
    if (heads % count === 0) return count;
    const expected = `divisors of heads (${heads})`;
    throw expectedError('HEADS_NOT_DIVISIBLE', 'options.kvHeads', expected, String(count));
  });
}
