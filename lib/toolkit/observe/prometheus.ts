/** A Monitor as gauges of prom-client, which are read when the registry is asked for them. */
import { createRequire } from 'node:module';
import type * as prometheus from 'prom-client';
import type { Gauge, Registry } from 'prom-client';
import type { Averaged, LayerAggregate } from './layer-aggregate';

const load = createRequire(__filename);

/** What the gauges read. */
interface Source {
  readonly aggregates: readonly LayerAggregate[];
  readonly alarms: number;
}

/** Loaded when first needed: whoever does not export metrics does not pay for it. */
function library(): typeof prometheus {
  return load('prom-client') as typeof prometheus;
}

export function newRegistry(): Registry {
  return new (library().Registry)();
}

const AVERAGES: readonly [Averaged, name: string, help: string][] = [
  ['entropy', 'entropy', 'Entropy of softmax weights over ln of the keys seen, 0 to 1'],
  ['sinkMass', 'sink_mass', 'Weight on the first keys and the sink logit, 0 to 1'],
  ['recentMass', 'recent_mass', 'Weight on the newest keys, 0 to 1'],
  ['effectiveContext', 'effective_context_keys', 'exp of the entropy: keys that matter'],
];

export function addMetrics(source: Source, registry: Registry, prefix: string): void {
  const add = (
    name: string,
    help: string,
    labelNames: string[],
    collect: (gauge: Gauge) => void,
  ): void => {
    new (library().Gauge)({
      name: prefix + name,
      help,
      labelNames,
      registers: [registry],
      collect() {
        this.reset();
        collect(this);
      },
    });
  };
  for (const [statistic, name, help] of AVERAGES) {
    add(name, help, ['layer', 'head', 'of'], (gauge) =>
      eachHead(source, (aggregate, layer, head) => {
        const summary = aggregate.summary(statistic, head);
        for (const of of ['mean', 'min', 'max'] as const) {
          gauge.set({ layer, head, of }, summary[of]);
        }
      }),
    );
  }
  add('max_logit', 'Largest score before the softmax', ['layer', 'head'], (gauge) =>
    eachHead(source, (aggregate, layer, head) => {
      gauge.set({ layer, head }, aggregate.maxLogit[head]);
    }),
  );
  add('rows', 'Query rows that were counted', ['layer'], (gauge) =>
    source.aggregates.forEach(({ rows }, layer) => gauge.set({ layer }, rows[0])),
  );
  addSpreads(source, add);
}

function addSpreads(
  source: Source,
  add: (name: string, help: string, labels: string[], collect: (gauge: Gauge) => void) => void,
): void {
  const help = 'Largest less smallest mean entropy of the query heads of a KV head';
  add('group_entropy_spread', help, ['layer', 'group'], (gauge) => {
    source.aggregates.forEach((aggregate, layer) => {
      if (aggregate.rows[0] === 0) return;
      for (let group = 0; group < aggregate.kvHeads; group++) {
        gauge.set({ layer, group }, aggregate.spread(group));
      }
    });
  });
  add('spread_alarms', 'Times that a group came above the alarm', [], (gauge) =>
    gauge.set(source.alarms),
  );
}

/** Heads that have rows. */
function eachHead(
  source: Source,
  use: (aggregate: LayerAggregate, layer: number, head: number) => void,
): void {
  source.aggregates.forEach((aggregate, layer) => {
    for (let head = 0; head < aggregate.heads; head++) {
      if (aggregate.rows[head] > 0) use(aggregate, layer, head);
    }
  });
}
