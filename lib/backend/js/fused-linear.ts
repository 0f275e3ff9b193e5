/** Linear layers that share an input, one after the other: nothing is saved by fusing them here. */
import type { FusedLinearArgs } from '../contract';
import { activate } from './activation';
import { add } from './elementwise';
import { linear } from './linear';
import { normalise } from './norm';

/** Grown when needed. */
let normed = new Float32Array(0);
let product = new Float32Array(0);

export function fusedLinear(args: FusedLinearArgs): void {
  const { tokens, parts, combine, activation = 'silu' } = args;
  const x = normalised(args);
  if (combine === 'add') {
    for (const part of parts) {
      const out = productOf(tokens * part.weights.rows);
      linear({ ...part, out, x, tokens });
      add(part.out, out, tokens * part.weights.rows);
    }
    return;
  }
  const written = combine === 'gated' ? parts.slice(0, 1) : parts;
  for (const part of written) linear({ ...part, x, tokens });
  if (combine === 'write') return;
  for (const { out, weights } of written) {
    const count = tokens * weights.rows;
    const second = combine === 'gated' ? productOf(count) : null;
    if (second !== null) linear({ ...parts[1], out: second, x, tokens });
    activate({ activation, x: out, second, out, count });
  }
}

function productOf(count: number): Float32Array {
  if (product.length < count) product = new Float32Array(count);
  return product;
}

function normalised({ x, tokens, norm, parts }: FusedLinearArgs): Float32Array {
  if (norm === null) return x;
  const dim = parts[0].weights.columns;
  if (normed.length < tokens * dim) normed = new Float32Array(tokens * dim);
  normalise(norm, x, normed, tokens, dim);
  return normed;
}
