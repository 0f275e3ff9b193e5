/** What every answer says of itself. */
import { createHash, randomBytes } from 'node:crypto';
import type { EngineLike } from '../engine/types';

export interface AnswerIdentity {
  id: string;
  object: string;
  /** Seconds since 1970. */
  created: number;
  model: string;
  system_fingerprint: string;
}

/** Answers of two servers with the same fingerprint and seed are the same. */
function fingerprint({ model }: EngineLike): string {
  const { kind, isa } = model.backend;
  const parts = JSON.stringify([model.id, model.config, model.bytes, kind, isa]);
  return `fp_${createHash('sha256').update(parts).digest('hex').slice(0, 12)}`;
}

/** Makes the identities of an endpoint's answers; `prefix` begins their ids. */
export function identities(engine: EngineLike, prefix: string): (object: string) => AnswerIdentity {
  const system_fingerprint = fingerprint(engine);
  return (object) => ({
    id: `${prefix}-${randomBytes(12).toString('hex')}`,
    object,
    created: Math.floor(Date.now() / 1000),
    model: engine.model.id,
    system_fingerprint,
  });
}
