/**
 * What grouping a layer's KV heads does to its attention output, measured: heads are grouped by aligned similarity and
 * merged by the aligned method (docs/conversion.md), and both layers read the original's inputs:
 *   error = sqrt(sum |o - o'|^2 / sum |o|^2), o after the output projection.
 */
import { SeededRandom } from '../../core/random';
import type { CheckpointSource } from '../../model/checkpoint-io/types';
import type { BlockLayers } from '../../model/arch/llama';
import { disposeProjections, withProjections } from '../convert/conversion-pass';
import { projectionTensors, readProjections } from '../convert/layer-tensors';
import { convertHeads } from '../convert/methods';
import { reorder, type Projections } from '../convert/projections';
import { groupBySimilarity } from '../convert/regroup';
import { headSimilarity, meanSimilarity } from '../convert/similarity';
import type { LayerPass } from '../layer-pass';

export interface Grouping {
  /** That the layer would be left with. */
  kvHeads: number;
  /** Old KV heads of each new one. */
  groups: number[][];
  /** Mean aligned similarity, by weights, of the pairs of heads that share a group. */
  similarity: number;
  /** Relative error of the layer's attention output. */
  outputError: number;
}

/** Divisors below n, the largest first: each count that n KV heads can be grouped to. */
export function smallerCounts(n: number): number[] {
  return Array.from({ length: n - 1 }, (_, i) => n - 1 - i).filter((count) => n % count === 0);
}

/** One way to group a layer, as a block beside the original. */
class GroupedBlock {
  private difference = 0;

  constructor(
    readonly kvHeads: number,
    readonly groups: number[][],
    readonly similarity: number,
    readonly block: BlockLayers,
  ) {}

  add(output: Float32Array, other: Float32Array): void {
    for (let i = 0; i < output.length; i++) this.difference += (output[i] - other[i]) ** 2;
  }

  result(whole: number): Grouping {
    const { kvHeads, groups, similarity } = this;
    const outputError = whole > 0 ? Math.sqrt(this.difference / whole) : 0;
    return { kvHeads, groups, similarity, outputError };
  }
}

export class GroupingErrors {
  private readonly blocks: readonly GroupedBlock[];
  private whole = 0;

  /** @param most counts of KV heads that are tried, the largest first */
  constructor(source: CheckpointSource, layer: BlockLayers, index: number, most: number) {
    const before = readProjections(source, index);
    const similarity = before.kvHeads > 1 ? meanSimilarity(headSimilarity(before)) : [];
    const bias = `model.layers.${index}.self_attn.o_proj.bias`;
    const outputBias = source.config.attentionBias ? source.read(bias) : null;
    this.blocks = smallerCounts(before.kvHeads)
      .slice(0, most)
      .map((kvHeads) => {
        const groups = groupBySimilarity(similarity, kvHeads);
        const after = grouped(before, groups);
        const tensors = projectionTensors(source, index, after);
        const block = withProjections(layer, index, tensors, outputBias);
        return new GroupedBlock(kvHeads, groups, withinGroups(similarity, groups), block);
      });
  }

  /** x: the original's inputs of a window; output: its attention output; `pass` has buffers of its own. */
  add(pass: LayerPass, x: Float32Array, output: Float32Array): void {
    for (let i = 0; i < output.length; i++) this.whole += output[i] ** 2;
    for (const grouping of this.blocks) {
      grouping.add(output, pass.attentionOutput(grouping.block, x));
    }
  }

  results(): Grouping[] {
    return this.blocks.map((block) => block.result(this.whole));
  }

  dispose(): void {
    for (const { block } of this.blocks) disposeProjections(block);
  }
}

function grouped(before: Projections, groups: readonly (readonly number[])[]): Projections {
  const inputs = { random: new SeededRandom(0), moment: null };
  return convertHeads(reorder(before, groups.flat()), groups.length, 'aligned', inputs);
}

function withinGroups(
  similarity: readonly (readonly number[])[],
  groups: readonly (readonly number[])[],
): number {
  let [sum, pairs] = [0, 0];
  for (const group of groups) {
    for (const i of group) {
      for (const j of group) {
        if (j >= i) continue;
        sum += similarity[i][j];
        pairs++;
      }
    }
  }
  return pairs > 0 ? sum / pairs : 1;
}
