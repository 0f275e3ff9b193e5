/** The choice of KV heads: what every divisor of the query heads costs and saves. */
import { GqaError } from '../../core/errors';
import { describe } from '../../core/validate';
import { isObject } from '../../model/json-fields';
import { kvBytes, type KvDType, type KvLoad } from './kv-bytes';
import { buyBack, parametersRead, parametersWith, type BuyBack } from './parameters';
import { mostKvHeads, withKvHeads, type ModelShape } from './shape';

/** What a conversion to so many KV heads did to a model, from its damage report. */
export interface MeasuredDamage {
  kvHeads: number;
  /** How heads were merged, where the report says so. */
  method: string | null;
  /** Nats a token. */
  crossEntropy: { before: number; after: number };
  /** KL(original || converted), nats a token; null where the report has none. */
  kl: number | null;
}

export interface GroupRow {
  kvHeads: number;
  /** Query heads that share one. */
  groupSize: number;
  kind: 'MHA' | 'GQA' | 'MQA';
  /** What the model has now. */
  current: boolean;
  bytesPerToken: number;
  /** Of the batch at the context. */
  cacheBytes: number;
  parameters: number;
  /** Seconds a decode step cannot beat; null without a bandwidth. */
  floorSeconds: number | null;
  buysBack: BuyBack;
  /** Empty: not measured. */
  damage: readonly MeasuredDamage[];
}

export function divisorsOf(n: number): number[] {
  return Array.from({ length: n }, (_, i) => n - i).filter((divisor) => n % divisor === 0);
}

export interface GroupTableInput {
  shape: ModelShape;
  dtype: KvDType;
  load: KvLoad;
  bitsPerParameter: number;
  /** Bytes a second. */
  bandwidth: number | null;
  damage: readonly MeasuredDamage[];
}

/** From one KV head per query head (MHA) down to one for all (MQA). */
export function groupTable(input: GroupTableInput): GroupRow[] {
  const { shape, dtype, load, bitsPerParameter, bandwidth } = input;
  const uniform = new Set(shape.layerKvHeads).size === 1;
  return divisorsOf(shape.heads).map((kvHeads): GroupRow => {
    const changed = withKvHeads(shape, kvHeads);
    const bytes = kvBytes(changed, dtype, load);
    const weights = (parametersRead(changed, load.batch) * bitsPerParameter) / 8;
    return {
      kvHeads,
      groupSize: shape.heads / kvHeads,
      // One query head has one KV head of its own.
      kind: kvHeads === shape.heads ? 'MHA' : kvHeads === 1 ? 'MQA' : 'GQA',
      current: uniform && kvHeads === mostKvHeads(shape),
      bytesPerToken: bytes.bytesPerToken,
      cacheBytes: bytes.batchBytes,
      parameters: parametersWith(shape, kvHeads),
      floorSeconds: bandwidth === null ? null : (weights + bytes.readBytes) / bandwidth,
      buysBack: buyBack(shape, kvHeads),
      damage: input.damage.filter((measured) => measured.kvHeads === kvHeads),
    };
  });
}

function finite(value: unknown): number | null {
  return typeof value === 'number' && Number.isFinite(value) ? value : null;
}

function wrongReport(source: string, field: string, expected: string, value: unknown): GqaError {
  const received = describe(value);
  const message = `Expected ${expected} for ${field} in ${source} but found ${received}`;
  return new GqaError('INVALID_FILE', message, { argument: field, expected, received });
}

/**
 * What the planner needs of a damage report (`gqa convert --report`). A report says how many bytes a token takes in an
 * f16 cache after the conversion, and with that how many KV heads a layer has on average: 4 L Hkv D bytes.
 *
 * @throws GqaError INVALID_FILE
 */
export function readDamage(shape: ModelShape, source: string, report: unknown): MeasuredDamage {
  if (!isObject(report)) throw wrongReport(source, 'the whole file', 'an object', report);
  const { crossEntropy, bytesPerToken, kl, method } = report;
  for (const field of ['heads', 'headDim'] as const) {
    const given = report[field];
    if (given === undefined || given === shape[field]) continue;
    throw wrongReport(source, field, `${shape[field]}, as the planned model has`, given);
  }
  const before = isObject(crossEntropy) ? finite(crossEntropy.before) : null;
  const after = isObject(crossEntropy) ? finite(crossEntropy.after) : null;
  if (before === null || after === null) {
    throw wrongReport(
      source,
      'crossEntropy',
      'numbers before and after (a conversion with a text)',
      crossEntropy,
    );
  }
  const bytes = isObject(bytesPerToken) ? finite(bytesPerToken.after) : null;
  if (bytes === null) {
    throw wrongReport(source, 'bytesPerToken', 'numbers before and after', bytesPerToken);
  }
  const kvHeads = bytes / (4 * shape.layers * shape.headDim);
  if (kvHeads <= 0 || kvHeads > shape.heads) {
    const expected = `bytes of 1 to ${shape.heads} KV heads of this model`;
    throw wrongReport(source, 'bytesPerToken.after', expected, bytes);
  }
  return {
    kvHeads,
    method: typeof method === 'string' ? method : null,
    crossEntropy: { before, after },
    kl: finite(kl),
  };
}
