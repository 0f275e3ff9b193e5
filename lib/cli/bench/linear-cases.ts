/**
 * The linear layers' product y [tokens, rows] = x [tokens, columns] W^T, f32 activations, weights packed from the
 * case's dtype: one token is a matrix-vector product bound by reading W, many are bound by arithmetic.
 */
import type { Backend, PackedWeights } from '../../backend/contract';
import { formatMatrix } from '../options';
import { randomData, randomWeights } from './data';
import { coldCopies } from './limits';
import type { Subject } from './measure';
import {
  linearFeature,
  LINEAR_TOLERANCE,
  relativeError,
  type Elements,
  type Weights,
} from './oracle';
import { linearWork, type LinearShape } from './roofline';

export type LinearCase = LinearShape;

/** Output features compared with float64, spread over the matrix. */
const CHECKED_FEATURES = 9;

export function describeLinear({ shape, tokens, dtype, precision }: LinearCase): string {
  const rows = `${tokens} ${tokens === 1 ? 'token' : 'tokens'}`;
  return `linear ${formatMatrix(shape)}, ${rows}, ${dtype} ${precision}`;
}

function checkFeatures(
  theCase: LinearCase,
  x: Elements,
  weight: Weights,
  out: Float32Array,
): number {
  const { shape, tokens } = theCase;
  const rows = Array.from({ length: CHECKED_FEATURES }, (_, i) =>
    Math.floor((i * (shape.rows - 1)) / (CHECKED_FEATURES - 1)),
  );
  let error = 0;
  for (const token of new Set([0, tokens - 1])) {
    const expected = rows.map((row) => linearFeature(x, token, weight, row, shape));
    const actual = rows.map((row) => out[token * shape.rows + row]);
    error = Math.max(error, relativeError(expected, actual));
  }
  const allowed = LINEAR_TOLERANCE[theCase.precision];
  if (!(error <= allowed)) {
    throw new Error(
      `${describeLinear(theCase)}: the result is off by ${error} against float64, ` +
        `allowed is ${allowed}`,
    );
  }
  return error;
}

export function linearSubject(backend: Backend, theCase: LinearCase): Subject {
  const { shape, tokens, dtype, precision } = theCase;
  const { rows, columns } = shape;
  const work = linearWork(theCase);
  const weight: Weights = { dtype, data: randomWeights(dtype, rows * columns, 1) };
  const x = randomData('f32', tokens * columns, 2) as Float32Array;
  const out = new Float32Array(tokens * rows);
  // Many tokens reuse W from the caches anyway; one token must find it in memory.
  const copies = tokens === 1 ? coldCopies(work.bytes) : 1;
  const packed: PackedWeights[] = [];
  for (let copy = 0; copy < copies; copy++) {
    packed.push(backend.packWeights({ weight: weight.data, dtype, rows, columns }));
  }
  let next = 0;
  const run1 = (weights: PackedWeights) =>
    backend.linear({ x, weights, bias: null, out, tokens, precision });
  return {
    work,
    period: copies,
    run: (calls) => {
      for (let call = 0; call < calls; call++) {
        run1(packed[next]);
        next = next + 1 === copies ? 0 : next + 1;
      }
    },
    verify: () => {
      run1(packed[copies - 1]);
      return checkFeatures(theCase, { data: x, dtype: 'f32' }, weight, out);
    },
    dispose: () => packed.forEach((weights) => weights.dispose()),
  };
}
