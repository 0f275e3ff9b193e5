/**
 * gqa's own attention: decode over a KvCache, f32 queries; prefill over plain tensors. Also measures the machine.
 *
 *   node gqa.js FOLDER [exact|fast]      the built package whose attention it is, its precision
 */
import { join } from 'node:path';
import type * as Library from '../../../lib';
import * as ownBackend from '../../../lib/backend';
import type { FloatDType } from '../../../lib/core/dtype';
import { LimitProbe } from '../../../lib/cli/bench/limits';
import type { MachineLimits } from '../../../lib/cli/bench/roofline';
import {
  queryTokens,
  readElements,
  timeCalls,
  writeElements,
  type AttentionHandlers,
  type AttentionTask,
} from '../attention-task';
import { serve } from '../protocol';

const folder = join(process.argv[2], 'dist', 'lib');
/* eslint-disable @typescript-eslint/no-require-imports -- which build it is, is known only now */
const { attention, KvCache, Tensor } = require(folder) as typeof Library;
const testedBackend = require(join(folder, 'backend')) as typeof ownBackend;
/* eslint-enable @typescript-eslint/no-require-imports */

/** Not given where a build may be older than the option. */
const PRECISION = process.argv[3] === 'fast' ? { precision: 'fast' as const } : {};

let copies = 0;
let call: (copy: number) => void;
let release: () => void = () => undefined;
let probe: LimitProbe | null = null;

function load(path: string, dtype: FloatDType, shape: number[]): Library.Tensor<FloatDType> {
  return Tensor.view<FloatDType>(readElements(path, dtype), shape, dtype);
}

function prepareDecode(task: AttentionTask): Library.Tensor<FloatDType> {
  const { heads, kvHeads, headDim, context, dtype, inputs } = task;
  const cache = new KvCache({
    layers: task.copies,
    kvHeads,
    headDim,
    capacity: context,
    dtype,
  });
  const sequence = cache.sequence();
  const k = load(task.k, inputs, [context, kvHeads, headDim]);
  const v = load(task.v, inputs, [context, kvHeads, headDim]);
  for (let layer = 0; layer < task.copies; layer++) sequence.append(layer, k, v);
  const q = load(task.q, inputs, [1, 1, heads, headDim]).to('f32');
  const out = Tensor.zeros([1, 1, heads, headDim]);
  call = (layer) => void attention(q, sequence.layer(layer), { out, ...PRECISION });
  release = () => {
    sequence.dispose();
    cache.dispose();
  };
  return out;
}

function preparePrefill(task: AttentionTask): Library.Tensor<FloatDType> {
  const { heads, kvHeads, headDim, context, inputs } = task;
  const q = load(task.q, inputs, [1, queryTokens(task), heads, headDim]);
  const k = load(task.k, inputs, [1, context, kvHeads, headDim]);
  const v = load(task.v, inputs, [1, context, kvHeads, headDim]);
  const out = Tensor.zeros(q.shape, inputs);
  call = () => void attention(q, k, v, { causal: true, out, ...PRECISION });
  release = () => undefined;
  return out;
}

const handlers: AttentionHandlers = {
  prepare(task) {
    release();
    testedBackend.getBackend().limitThreads(task.threads);
    copies = task.copies;
    const out = task.op === 'decode' ? prepareDecode(task) : preparePrefill(task);
    call(copies - 1);
    writeElements(task.output, out.toFloat32());
  },
  time: (seconds) => timeCalls(seconds, copies, call),
};

/** By this package's own backend: the build at FOLDER may be older than the probes. */
function limits(threads: number): MachineLimits {
  const backend = ownBackend.getBackend();
  backend.limitThreads(threads);
  probe ??= new LimitProbe(backend);
  return probe.measure();
}

serve({ ...handlers, limits });
