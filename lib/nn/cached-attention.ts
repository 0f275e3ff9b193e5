/**
 * One batch row of an attention module over a sequence: keys and values [1, Tk, kvHeads, headDim] are appended, queries
 * [1, Tq, heads, headDim] attend over all that is held; the last query is the newest position.
 */
import { attention } from '../attention';
import type { AttentionOptions } from '../attention';
import { AttentionStatsPart } from '../core/attention-stats';
import { Tensor } from '../core/tensor';
import type { KvSequence } from '../kv-cache/kv-cache';
import { attendPlan } from './attention-call';
import type { AttentionCall } from './attention-call';

/** Projected and rotated rows of one batch row, and where its result goes. */
export interface HeadTensors {
  query: Tensor<'f32'>;
  key: Tensor<'f32'>;
  value: Tensor<'f32'>;
  /** [1, Tq, heads, headDim] */
  out: Tensor<'f32'>;
}

/**
 * `nextDropout` gives each attention call its own draw. The call was checked (readCall), so nothing fails half way.
 */
export function attendOverCache(
  call: AttentionCall,
  batchRow: number,
  sequence: KvSequence,
  heads: HeadTensors,
  nextDropout: () => AttentionOptions['dropout'],
): void {
  const { queryTokens, keyTokens, layer, features } = call;
  const held = sequence.length;
  const statsFrom = (row: number): AttentionStatsPart | undefined => {
    const rows = (batchRow * queryTokens + row) * heads.query.shape[2];
    return call.stats === null ? undefined : new AttentionStatsPart(call.stats, rows);
  };
  const attendPart = (
    { query, out }: HeadTensors,
    from: number,
    to: number,
    keys: number,
  ): void => {
    const mask = maskPart(call.mask, batchRow, from, to, keys);
    const options = { ...features, mask, out, dropout: nextDropout(), stats: statsFrom(from) };
    attention(query, sequence.layer(layer), options);
  };
  switch (attendPlan(call, sequence)) {
    case 'whole':
      sequence.append(layer, heads.key, heads.value);
      attendPart(heads, 0, queryTokens, held + keyTokens);
      break;
    case 'cut':
      for (let from = 0, to; from < keyTokens; from = to) {
        to = Math.min(keyTokens, from + sequence.longestChunk);
        const part = tokenRange(heads, from, to);
        sequence.append(layer, part.key, part.value);
        attendPart(part, from, to, held + to);
      }
      break;
    default: {
      const { window, sinkTokens } = sequence.layer(layer);
      attention(heads.query, heads.key, heads.value, {
        causal: features.causal ?? true,
        window: features.window ?? window,
        sinkTokens: features.sinkTokens ?? sinkTokens,
        mask: maskPart(call.mask, batchRow, 0, queryTokens, keyTokens),
        out: heads.out,
        dropout: nextDropout(),
        stats: statsFrom(0),
      });
      sequence.append(layer, heads.key, heads.value);
    }
  }
}

function tokenRange(heads: HeadTensors, from: number, to: number): HeadTensors {
  const cut = (tensor: Tensor<'f32'>): Tensor<'f32'> => {
    const [, , headCount, headDim] = tensor.shape;
    const rowSize = headCount * headDim;
    const data = tensor.data.subarray(from * rowSize, to * rowSize);
    return Tensor.view(data, [1, to - from, headCount, headDim]);
  };
  return {
    query: cut(heads.query),
    key: cut(heads.key),
    value: cut(heads.value),
    out: cut(heads.out),
  };
}

/** Rows [from, to) and the first `keys` columns of a batch row's mask, [1, 1 or heads, to - from, keys]. */
function maskPart(
  mask: Tensor<'u8'> | undefined,
  batchRow: number,
  from: number,
  to: number,
  keys: number,
): Tensor<'u8'> | undefined {
  if (mask === undefined) return undefined;
  const [batch, heads, rows, columns] = mask.shape;
  const plane = heads * rows * columns;
  const first = batch === 1 ? 0 : batchRow * plane;
  const whole = mask.data.subarray(first, first + plane);
  if (to - from === rows && keys === columns) return Tensor.view(whole, [1, heads, rows, columns]);
  const part = new Uint8Array(heads * (to - from) * keys);
  for (let h = 0, at = 0; h < heads; h++) {
    for (let i = from; i < to; i++, at += keys) {
      const row = (h * rows + i) * columns;
      part.set(whole.subarray(row, row + keys), at);
    }
  }
  return Tensor.view(part, [1, heads, to - from, keys]);
}
