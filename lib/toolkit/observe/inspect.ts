/**
 * What the attention of a model does with a text, and what grouping its KV heads would do to it: all windows go through the
 * model layer by layer (layer-pass.ts), and of each layer statistics from inside the kernels, similarity of KV heads, and
 * the measured error of grouping them are taken on the way.
 */
import { attention } from '../../attention';
import { openSource } from '../../model/checkpoint-io';
import type { CheckpointSource } from '../../model/checkpoint-io/types';
import type { BlockLayers } from '../../model/arch/llama';
import { readCorpus, type Corpus } from '../corpus';
import { LayerPass, type HiddenStates } from '../layer-pass';
import type { TaskContext } from '../task';
import { GroupingErrors, type Grouping } from './grouping-errors';
import { LikenessSums, type HeadLikeness } from './head-likeness';
import { Monitor, type LayerReport } from './monitor';
import { checkRule, verdictOf, ENTROPY_RULE, type RuleCheck, type Verdict } from './verdict';

/** What inspectModel passes on, checked and with defaults. */
export interface InspectJob {
  model: string;
  text: string;
  window: number;
  maxTokens: number;
  /** Counts of KV heads that grouping is measured for, the largest first. */
  groupings: number;
  sinkTokens: number;
  recentTokens: number;
  spreadAlarm: number;
}

export interface LayerInspection extends LayerReport {
  kvHeads: number;
  /** Mean entropy of its rows that see two keys or more, over all heads, in nats: what the popular rule looks at. */
  entropyNats: number;
  /** Whether the rule calls the layer safe to group. */
  ruleSaysSafe: boolean;
  likeness: HeadLikeness;
  /** Fewer KV heads, the largest count first; empty where there is one. */
  groupings: Grouping[];
  /** By the first of them. */
  verdict: Verdict;
}

export interface InspectReport {
  model: string;
  text: { path: string; tokens: number; windows: number; window: number; cut: number };
  heads: number;
  headDim: number;
  sinkTokens: number;
  recentTokens: number;
  spreadAlarm: number;
  alarms: number;
  rule: RuleCheck;
  layers: LayerInspection[];
}

/** @throws GqaError as inspectModel */
export function runInspection(job: InspectJob, context: TaskContext): InspectReport {
  const source = openSource(job.model);
  try {
    return new Inspection(job, source, context).run();
  } finally {
    source.close();
  }
}

class Inspection {
  private readonly corpus: Corpus;
  private readonly monitor: Monitor;
  private readonly original: LayerPass;
  /** Of grouped layers: buffers of their own. */
  private readonly grouped: LayerPass;

  constructor(
    private readonly job: InspectJob,
    private readonly source: CheckpointSource,
    private readonly context: TaskContext,
  ) {
    const { config, weights } = source;
    const { sinkTokens, recentTokens, spreadAlarm, maxTokens } = job;
    context.progress({ stage: 'reading the text', done: 0, total: config.layers });
    const window = Math.min(job.window, config.contextLength);
    this.corpus = readCorpus(job.text, source.tokenizer(), { window, maxTokens });
    this.monitor = new Monitor({
      ...{ layers: config.layers, heads: config.heads, kvHeads: config.layerKvHeads },
      ...{ sinkTokens, recentTokens, spreadAlarm },
    });
    const longest = this.corpus.windows[0].length;
    this.original = new LayerPass(config, weights, longest);
    this.grouped = new LayerPass(config, weights, longest);
  }

  run(): InspectReport {
    const { job, corpus, monitor } = this;
    const { heads, headDim } = this.source.config;
    const states = this.original.embed(corpus.windows);
    const layers: LayerInspection[] = [];
    for (const layer of this.original.layers()) {
      layers.push(this.inspect(layer, layers.length, states));
    }
    const rows = layers.flatMap(({ entropyNats, groupings: [first] }) =>
      first === undefined ? [] : [{ entropyNats, ...first }],
    );
    const { tokens, windows, cut } = corpus;
    const { sinkTokens, recentTokens, spreadAlarm } = job;
    return {
      model: job.model,
      text: { path: job.text, tokens, windows: windows.length, window: windows[0].length, cut },
      ...{ heads, headDim, sinkTokens, recentTokens, spreadAlarm },
      alarms: monitor.alarms,
      rule: checkRule(rows),
      layers,
    };
  }

  /** Takes all windows through the layer. */
  private inspect(layer: BlockLayers, index: number, states: HiddenStates): LayerInspection {
    const { source, context, job, original, grouped, monitor } = this;
    const { headDim, layerKvHeads, layers } = source.config;
    const kvHeads = layerKvHeads[index];
    const likeness = new LikenessSums(kvHeads, headDim);
    const nats = new MeanNats();
    const errors = new GroupingErrors(source, layer, index, job.groupings);
    try {
      original.advance(layer, states, (window, output) => {
        context.throwIfCancelled();
        const done = index + window / states.windows;
        context.progress({ stage: 'inspecting layers', done, total: layers });
        const x = states.window(window);
        const projected = grouped.project(layer, x);
        likeness.add(projected);
        const stats = monitor.layers[index];
        attention(...projected, { causal: true, stats });
        monitor.record(index);
        nats.add(stats.entropy, stats.visible);
        errors.add(grouped, x, output);
      });
      const groupings = errors.results();
      const entropyNats = nats.mean();
      return {
        ...monitor.layerReport(index),
        ...{ kvHeads, entropyNats, ruleSaysSafe: entropyNats < ENTROPY_RULE },
        ...{ likeness: likeness.likeness(), groupings },
        verdict: verdictOf(groupings.length > 0 ? groupings[0].outputError : null),
      };
    } finally {
      errors.dispose();
    }
  }
}

/** Mean of H = (H / ln n) ln n. */
class MeanNats {
  private sum = 0;
  private rows = 0;

  add(entropy: Float32Array, visible: Float32Array): void {
    for (let i = 0; i < entropy.length; i++) {
      if (visible[i] < 2) continue;
      this.sum += entropy[i] * Math.log(visible[i]);
      this.rows++;
    }
  }

  mean(): number {
    return this.rows > 0 ? this.sum / this.rows : 0;
  }
}
