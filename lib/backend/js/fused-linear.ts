/** Linear layers that share an input, one after the other: nothing is saved by fusing them here. */
import type { FusedLinearArgs } from '../contract';
import { add, rmsNorm, swiglu } from './elementwise';
import { linear } from './linear';

/** Grown when needed. */
let normed = new Float32Array(0);
let product = new Float32Array(0);

export function fusedLinear(args: FusedLinearArgs): void {
  const { tokens, parts, combine } = args;
  const x = normalised(args);
  if (combine === 'write') {
    for (const part of parts) linear({ ...part, x, tokens });
    return;
  }
  for (const part of combine === 'add' ? parts : parts.slice(1)) {
    const count = tokens * part.weights.rows;
    if (product.length < count) product = new Float32Array(count);
    linear({ ...part, out: product, x, tokens });
    if (combine === 'add') {
      add(part.out, product, count);
    } else {
      const { out } = parts[0];
      linear({ ...parts[0], x, tokens });
      swiglu({ gate: out, up: product, out, count });
    }
  }
}

function normalised({ x, tokens, norm, parts }: FusedLinearArgs): Float32Array {
  if (norm === null) return x;
  const dim = parts[0].weights.columns;
  if (normed.length < tokens * dim) normed = new Float32Array(tokens * dim);
  rmsNorm({ x, ...norm, out: normed, tokens, dim });
  return normed;
}
