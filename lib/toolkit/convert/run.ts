/** The task behind convertCheckpoint: one layer after another is read, converted, measured and written. */
import { expectedError } from '../../core/errors';
import { SeededRandom } from '../../core/random';
import { createSink, openSource } from '../../model/checkpoint-io';
import type { CheckpointSink, CheckpointSource } from '../../model/checkpoint-io/types';
import type { BlockLayers } from '../../model/arch/llama';
import { readCorpus, type Corpus } from '../corpus';
import {
  bytesChange,
  modelDamage,
  type DamageReport,
  type LayerDamage,
  type TextUse,
} from '../report/damage';
import { modelCard } from '../report/model-card';
import type { TaskContext } from '../task';
import { ConversionPass, disposeProjections, withProjections } from './conversion-pass';
import { layerTensorNames, projectionTensors, readProjections } from './layer-tensors';
import { convertHeads, type Method } from './methods';
import { reorder, type Projections } from './projections';
import { adjacentGroups, groupBySimilarity } from './regroup';
import { headSimilarity, meanSimilarity } from './similarity';
import { weightErrors } from './weight-errors';

/** What convertCheckpoint passes on, checked and with defaults. */
export interface ConvertJob {
  input: string;
  output: string;
  method: Method;
  kvHeads: number | readonly number[];
  regroup: boolean;
  text: string | null;
  calibration: string | null;
  seed: number;
  overwrite: boolean;
  maxTokens: number;
  window: number;
}

/** @throws GqaError as convertCheckpoint */
export function runConversion(job: ConvertJob, context: TaskContext): DamageReport {
  const source = openSource(job.input);
  try {
    return new Conversion(job, source, context).run();
  } finally {
    source.close();
  }
}

/** KV heads of each layer. @throws GqaError HEADS_NOT_DIVISIBLE, INVALID_SHAPE (a plan for other layers) */
export function planOf(
  kvHeads: number | readonly number[],
  layerKvHeads: readonly number[],
): number[] {
  const plan = typeof kvHeads === 'number' ? layerKvHeads.map(() => kvHeads) : [...kvHeads];
  if (plan.length !== layerKvHeads.length) {
    const expected = `one number for each of ${layerKvHeads.length} layers`;
    throw expectedError('INVALID_SHAPE', 'kvHeads', expected, `${plan.length} numbers`);
  }
  plan.forEach((count, layer) => {
    const old = layerKvHeads[layer];
    if (Number.isInteger(count) && count >= 1 && old % count === 0) return;
    const expected = `a divisor of the ${old} KV heads of layer ${layer}`;
    throw expectedError('HEADS_NOT_DIVISIBLE', 'kvHeads', expected, String(count));
  });
  return plan;
}

class Conversion {
  private readonly plan: number[];
  private readonly text: Corpus | null;
  private readonly calibration: Corpus | null;
  private readonly random: SeededRandom;

  constructor(
    private readonly job: ConvertJob,
    private readonly source: CheckpointSource,
    private readonly context: TaskContext,
  ) {
    this.plan = planOf(job.kvHeads, source.config.layerKvHeads);
    this.random = new SeededRandom(job.seed);
    context.progress({ stage: 'reading the text', done: 0, total: this.layers });
    const calibrated = job.method === 'fitted';
    this.text = this.corpus(job.text);
    const same = job.calibration === null || job.calibration === job.text;
    if (!calibrated) this.calibration = null;
    else this.calibration = same ? this.text : this.corpus(job.calibration);
  }

  run(): DamageReport {
    const { source, job, plan } = this;
    const { attentionBias } = source.config;
    const changed = plan.flatMap((_, layer) => layerTensorNames(attentionBias, layer));
    const { overwrite } = job;
    const sink = createSink(job.output, source, { layerKvHeads: plan, changed, overwrite });
    let pass: ConversionPass | null = null;
    try {
      const texts = { text: this.text, calibration: this.calibration };
      if (texts.text !== null || texts.calibration !== null) {
        pass = new ConversionPass(source, texts);
      }
      const layers: LayerDamage[] = [];
      for (let layer = 0; layer < this.layers; layer++) {
        this.tell('converting', layer, this.layers);
        layers.push(this.convert(layer, pass, sink));
      }
      const report = this.report(layers, pass);
      this.tell('writing', this.layers, this.layers);
      while (sink.copyNext() !== null) this.context.throwIfCancelled();
      sink.commit({ 'README.md': modelCard(report) });
      return report;
    } catch (error) {
      sink.abort();
      throw error;
    } finally {
      pass?.dispose();
    }
  }

  private get layers(): number {
    return this.source.config.layers;
  }

  private corpus(path: string | null): Corpus | null {
    if (path === null) return null;
    const { window, maxTokens } = this.job;
    const { contextLength } = this.source.config;
    const options = { window: Math.min(window, contextLength), maxTokens };
    return readCorpus(path, this.source.tokenizer(), options);
  }

  private tell(stage: string, done: number, total: number): void {
    this.context.throwIfCancelled();
    this.context.progress({ stage, done, total });
  }

  private convert(index: number, pass: ConversionPass | null, sink: CheckpointSink): LayerDamage {
    const { source, job, plan } = this;
    const read = readProjections(source, index);
    const kvHeads = plan[index];
    const groups = this.groups(read, kvHeads);
    const before = reorder(read, groups.flat());
    const layer = pass?.next() ?? null;
    // Drawn for every layer, so that one layer's plan does not change the heads of the others.
    const random = new SeededRandom(this.random.next());
    const moment = layer === null ? null : pass!.moment(layer);
    const after = this.refitted(
      index,
      convertHeads(before, kvHeads, job.method, { random, moment }),
      kvHeads === read.kvHeads ? null : layer,
      pass,
    );
    const tensors = projectionTensors(source, index, after);
    for (const [name, tensor] of tensors) sink.write(name, tensor);
    const outputError =
      layer === null ? null : this.advance(index, layer, this.asBlock(index, after, layer), pass!);
    return {
      layer: index,
      kvHeads: { before: read.kvHeads, after: kvHeads },
      groups,
      outputError,
      ...weightErrors(before, after),
    };
  }

  private groups(layer: Projections, kvHeads: number): number[][] {
    if (!this.job.regroup || kvHeads === layer.kvHeads || kvHeads === 1) {
      return adjacentGroups(layer.kvHeads, kvHeads);
    }
    return groupBySimilarity(meanSimilarity(headSimilarity(layer)), kvHeads);
  }

  /** With its output projection fitted to the original's outputs, where there is calibration text. */
  private refitted(
    index: number,
    after: Projections,
    layer: BlockLayers | null,
    pass: ConversionPass | null,
  ): Projections {
    if (this.calibration === null || layer === null || pass === null) return after;
    const folded = this.asBlock(index, after, layer);
    try {
      return { ...after, output: pass.refit(index, layer, folded, after.output) };
    } finally {
      disposeProjections(folded);
    }
  }

  /** The layer as it will be read from the output: rounded to the checkpoint's dtypes. */
  private asBlock(index: number, after: Projections, layer: BlockLayers): BlockLayers {
    const bias = `model.layers.${index}.self_attn.o_proj.bias`;
    const outputBias = this.source.config.attentionBias ? this.source.read(bias) : null;
    return withProjections(layer, index, projectionTensors(this.source, index, after), outputBias);
  }

  private advance(
    index: number,
    layer: BlockLayers,
    after: BlockLayers,
    pass: ConversionPass,
  ): number | null {
    this.tell('measuring', index, this.layers);
    try {
      return pass.advance(layer, after);
    } finally {
      disposeProjections(after);
    }
  }

  private report(layers: LayerDamage[], pass: ConversionPass | null): DamageReport {
    const { job, plan, source, text, calibration } = this;
    const { heads, headDim } = source.config;
    const windows = text?.windows.length ?? 0;
    const comparison = pass?.compare((done) => this.tell('comparing predictions', done, windows));
    return {
      source: job.input,
      output: job.output,
      method: job.method,
      regroup: job.regroup,
      seed: job.seed,
      heads,
      headDim,
      ...modelDamage(comparison ?? null),
      bytesPerToken: bytesChange(source.config, plan),
      text: textUse(job.text, text),
      calibration: textUse(job.calibration ?? job.text, calibration),
      layers,
    };
  }
}

function textUse(path: string | null, corpus: Corpus | null): TextUse | null {
  if (path === null || corpus === null) return null;
  const { windows, tokens, documents, cut } = corpus;
  return {
    path,
    tokens,
    windows: windows.length,
    window: windows[0].length,
    documents,
    cut,
  };
}
