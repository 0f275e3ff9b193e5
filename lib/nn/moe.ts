/**
 * A mixture of experts: a router sends each token to a few of many gated MLPs,
 *   out += sum over its experts e of share_e down_e(act(gate_e(n)) * up_e(n)),  n = norm(x)
 * Each expert is computed once for all tokens of a batch that go to it, and a token's experts are added in ascending
 * order, so that what a token gets does not depend on the batch.
 */
import { expectedError } from '../core/errors';
import { requireInteger } from '../core/validate';
import type { Activation } from './activation';
import { FusedLinear, type Norm } from './fused-linear';
import type { Linear } from './linear';
import type { Sublayer, Tokens } from './sublayer';

/** Any of the layers may have a bias. */
export interface Expert {
  gate: Linear;
  up: Linear;
  down: Linear;
}

export interface MoEParts {
  norm: Norm | null;
  /** Logits of the experts, outFeatures = experts. */
  router: Linear;
  experts: readonly Expert[];
  /** Experts that each token goes to: those of the largest logits, the first of equals. */
  expertsPerToken: number;
  /**
   * The softmax over whose logits a chosen expert's share is: those of the 'chosen' ones, so that shares sum to 1 (Mixtral,
   * gpt-oss, `norm_topk_prob`), or those of 'all'. Default 'chosen'.
   */
  shares?: 'chosen' | 'all';
  activation: Activation;
}

interface ExpertCalls {
  widen: FusedLinear;
  down: FusedLinear;
}

export class MoE implements Sublayer {
  private readonly route: FusedLinear;
  private readonly calls: readonly ExpertCalls[];
  /** Of each row its experts, [rows, expertsPerToken], and their shares. */
  private chosen = new Int32Array(0);
  private shares = new Float64Array(0);
  /** Rows that go to the expert in turn, and where in `shares` theirs of it are. */
  private routed = new Int32Array(0);
  private slots = new Int32Array(0);

  /** @throws GqaError INVALID_ARGUMENT, INVALID_SHAPE, OUT_OF_RANGE where the parts do not fit together */
  constructor(private readonly parts: MoEParts) {
    checkParts(parts);
    this.route = new FusedLinear(null, [parts.router], 'write');
    this.calls = parts.experts.map(({ gate, up, down }) => ({
      widen: new FusedLinear(null, [gate, up], 'gated', parts.activation),
      down: new FusedLinear(null, [down], 'write'),
    }));
  }

  get bytes(): number {
    const { norm, router, experts } = this.parts;
    const layers = experts.flatMap(({ gate, up, down }) => [gate, up, down]);
    return [router, ...layers].reduce((sum, { bytes }) => sum + bytes, norm?.bytes ?? 0);
  }

  addTo(out: Float32Array, x: Float32Array, { rows, scratch }: Tokens): void {
    const { norm, router, experts } = this.parts;
    const dim = router.inFeatures;
    scratch.checkTokens(rows);
    // Not x, which out may be: an expert adds to it before the next one reads.
    const input = scratch.rows('expertInput', dim);
    if (norm === null) input.set(x.subarray(0, rows * dim));
    else norm.apply(x, input, rows);
    const logits = scratch.rows('expertLogits', experts.length);
    this.route.run(input, rows, [logits], scratch);
    this.choose(logits, rows);

    const gathered = scratch.rows('expertRows', dim);
    const results = scratch.rows('expertResults', dim);
    for (let expert = 0; expert < experts.length; expert++) {
      const count = this.findRouted(expert, rows);
      if (count === 0) continue;
      const { routed, slots, shares } = this;
      for (let i = 0; i < count; i++) {
        const from = routed[i] * dim;
        gathered.set(input.subarray(from, from + dim), i * dim);
      }
      const gated = scratch.rows('gated', experts[expert].gate.outFeatures);
      const { widen, down } = this.calls[expert];
      widen.run(gathered, count, [gated], scratch);
      down.run(gated, count, [results], scratch);
      for (let i = 0; i < count; i++) {
        const share = shares[slots[i]];
        const to = routed[i] * dim;
        for (let d = 0; d < dim; d++) out[to + d] += share * results[i * dim + d];
      }
    }
  }

  /** Fills `chosen` and `shares` from logits [rows, experts]. */
  private choose(logits: Float32Array, rows: number): void {
    const { expertsPerToken: most, shares: over = 'chosen', experts } = this.parts;
    const count = experts.length;
    if (this.chosen.length < rows * most) {
      this.chosen = new Int32Array(rows * most);
      this.shares = new Float64Array(rows * most);
      this.routed = new Int32Array(rows);
      this.slots = new Int32Array(rows);
    }
    const { chosen, shares } = this;
    for (let row = 0; row < rows; row++) {
      const first = row * most;
      for (let k = 0; k < most; k++) chosen[first + k] = this.nextBest(logits, row, k);
      const largest = logits[row * count + chosen[first]];
      let sum = 0;
      for (let k = 0; k < most; k++) {
        sum += shares[first + k] = Math.exp(logits[row * count + chosen[first + k]] - largest);
      }
      if (over === 'all') {
        sum = 0;
        for (let e = 0; e < count; e++) sum += Math.exp(logits[row * count + e] - largest);
      }
      for (let k = 0; k < most; k++) shares[first + k] /= sum;
    }
  }

  /** The expert of the largest logit that is none of the row's first k; there always is one, NaN or not. */
  private nextBest(logits: Float32Array, row: number, k: number): number {
    const { expertsPerToken, experts } = this.parts;
    const first = row * expertsPerToken;
    const at = row * experts.length;
    let best = -1;
    for (let expert = 0; expert < experts.length; expert++) {
      if (best >= 0 && !(logits[at + expert] > logits[at + best])) continue;
      let taken = false;
      for (let i = 0; i < k; i++) taken ||= this.chosen[first + i] === expert;
      if (!taken) best = expert;
    }
    return best;
  }

  /** Fills `routed` and `slots` with the rows that go to the expert, in ascending order. @returns their number */
  private findRouted(expert: number, rows: number): number {
    const { expertsPerToken } = this.parts;
    const { chosen, routed, slots } = this;
    let count = 0;
    for (let slot = 0; slot < rows * expertsPerToken; slot++) {
      if (chosen[slot] !== expert) continue;
      routed[count] = Math.floor(slot / expertsPerToken);
      slots[count++] = slot;
    }
    return count;
  }

  dispose(): void {
    const { router, experts } = this.parts;
    router.dispose();
    for (const { gate, up, down } of experts) for (const l of [gate, up, down]) l.dispose();
  }
}

function checkParts({ norm, router, experts, expertsPerToken, shares }: MoEParts): void {
  const { inFeatures: dim, outFeatures: count } = router;
  if (experts.length !== count) {
    const received = `${experts.length} experts`;
    throw expectedError('INVALID_SHAPE', 'experts', `${count}, the router's`, received);
  }
  requireInteger(expertsPerToken, 'expertsPerToken', 1, count);
  if (shares !== undefined && shares !== 'chosen' && shares !== 'all') {
    throw expectedError('INVALID_ARGUMENT', 'shares', "'chosen' or 'all'", String(shares));
  }
  if (norm !== null && norm.dim !== dim) {
    throw expectedError('INVALID_SHAPE', 'norm', `one of ${dim}`, `one of ${norm.dim}`);
  }
  experts.forEach(({ gate, up, down }, i) => {
    const width = gate.outFeatures;
    const fits = (layer: Linear, input: number, output: number): boolean =>
      layer.inFeatures === input && layer.outFeatures === output;
    if (fits(gate, dim, width) && fits(up, dim, width) && fits(down, width, dim)) return;
    const expected = `gate and up from ${dim} to as many features, down back to ${dim},`;
    const received = [gate, up, down].map((l) => `${l.inFeatures} to ${l.outFeatures}`).join(', ');
    throw expectedError('INVALID_SHAPE', `experts[${i}]`, expected, received);
  });
}
