/**
 * What a linear layer gives for a token depends on that token alone: the same bits by itself, among any number of others,
 * at any place among them, and for every thread count. A server's answers then do not depend on who else is served.
 * AMX tiles ('fast', 16 tokens and more) are the one exception, see docs/numerics.md.
 */
import { getBackend } from '../../lib/backend';
import type { FusedLinearArgs, LinearPart } from '../../lib/backend/contract';
import type { WeightDType } from '../../lib/core/dtype';
import type { Precision } from '../../lib/core/precision';
import { randomBlocks } from '../support/blocks';
import { expectSameBits } from '../support/compare';
import { Random } from '../support/random';
import { axis } from '../support/samples';
import { normals, toBits } from '../support/tensors';

const DTYPES: WeightDType[] = ['f32', 'f16', 'bf16', 'q8_0', 'q4_0', 'q4_1'];
const PRECISIONS: Precision[] = ['exact', 'fast'];
const backend = getBackend();
/** From so many tokens on AMX multiplies otherwise. */
const MOST_FAST_TOKENS = backend.info.isa === 'amx' ? 15 : Infinity;
const MOST_TOKENS = 100;

function randomWeights(random: Random, rows: number, columns: number, dtype: WeightDType) {
  const weight =
    dtype === 'f32' || dtype === 'f16' || dtype === 'bf16'
      ? toBits(normals(random, rows * columns, dtype), dtype)
      : randomBlocks(random, (rows * columns) / 32, dtype).bytes;
  return backend.packWeights({ weight, dtype, rows, columns });
}

/** Runs `call` on all threads and on one. */
function onAnyThreads(call: (threads: number) => void): void {
  const { threads } = backend.info;
  try {
    for (const n of new Set([threads, 1])) {
      backend.limitThreads(n);
      call(n);
    }
  } finally {
    backend.limitThreads(threads);
  }
}

describe.each(PRECISIONS)('%s', (precision) => {
  const most = precision === 'fast' ? MOST_FAST_TOKENS : Infinity;
  const counts = [1, 2, 3, 4, 5, 6, 7, 8, 13, 16, 24, 31, 97];
  const tokenCounts = axis(counts).filter((tokens) => tokens <= most);

  // Outputs that end inside a vector, a panel and a task; inputs that end inside a vector where the dtype allows it.
  describe.each(DTYPES)('weights of %s', (dtype) => {
    const blocks = dtype.startsWith('q');
    test.each(
      axis([
        [17, blocks ? 32 : 31],
        [100, blocks ? 96 : 77],
        [576, blocks ? 320 : 333],
      ]),
    )('%i outputs of %i inputs', (rows, columns) => {
      const random = new Random(rows + columns);
      const weights = randomWeights(random, rows, columns, dtype);
      const x = Float32Array.from(normals(random, MOST_TOKENS * columns, 'f32', 2));
      const run = (first: number, tokens: number): Float32Array => {
        const out = new Float32Array(tokens * rows);
        const input = x.subarray(first * columns, (first + tokens) * columns);
        backend.linear({ x: input, weights, bias: null, out, tokens, precision });
        return out;
      };
      const alone = Array.from({ length: MOST_TOKENS }, (_, token) => run(token, 1));
      onAnyThreads((threads) => {
        for (const tokens of tokenCounts)
          for (const first of new Set([0, 2, MOST_TOKENS - tokens])) {
            const out = run(first, tokens);
            for (let t = 0; t < tokens; t++) {
              const what = `token ${t} of ${tokens} from ${first}, ${threads} threads`;
              expectSameBits(what, out.subarray(t * rows, (t + 1) * rows), alone[first + t]);
            }
          }
      });
      weights.dispose();
    });
  });

  test.each(axis(DTYPES))('fused over %s and f32: norm, parts, gates, additions', (dtype) => {
    const [rows, columns] = [80, 64];
    const random = new Random(9);
    const weights = [dtype, dtype, 'f32' as const].map((d) =>
      randomWeights(random, rows, columns, d),
    );
    const bias = Float32Array.from(normals(random, rows, 'f32'));
    const weight = Float32Array.from(normals(random, columns, 'f32'));
    const x = Float32Array.from(normals(random, MOST_TOKENS * columns, 'f32', 3));
    const fused = (
      combine: FusedLinearArgs['combine'],
      parts: number,
      first: number,
      tokens: number,
    ): Float32Array[] => {
      const made: LinearPart[] = weights.slice(0, parts).map((w, i) => ({
        weights: w,
        bias: i === 0 ? bias : null,
        out: new Float32Array(tokens * rows).fill(0.5),
      }));
      const kind = combine === 'add' ? ('layer' as const) : ('rms' as const);
      const norm = { kind, weight, bias: kind === 'layer' ? weight : null, eps: 1e-5 };
      const input = x.subarray(first * columns, (first + tokens) * columns);
      backend.fusedLinear({ x: input, tokens, norm, parts: made, combine, precision });
      return made.map((part) => part.out);
    };
    for (const [combine, parts] of [
      ['write', 3],
      ['add', 1],
      ['gated', 2],
    ] as const) {
      const alone = Array.from({ length: MOST_TOKENS }, (_, t) => fused(combine, parts, t, 1));
      onAnyThreads(() => {
        for (const tokens of tokenCounts) {
          const first = MOST_TOKENS - tokens;
          fused(combine, parts, first, tokens).forEach((out, part) => {
            // The second part of gates is not written.
            if (combine === 'gated' && part > 0) return;
            for (let t = 0; t < tokens; t++) {
              const what = `${combine}, part ${part}, token ${t} of ${tokens}`;
              expectSameBits(what, out.subarray(t * rows, (t + 1) * rows), alone[first + t][part]);
            }
          });
        }
      });
    }
    weights.forEach((w) => w.dispose());
  });
});
