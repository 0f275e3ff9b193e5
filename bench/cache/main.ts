/**
 * What the KV cache promises beside the speed of attention; each prints its figures and fails where a bar is missed.
 *
 *   npm run bench:cache -- shared [dtype] [precision]   8 sequences over one prefix, against 8 of their own
 *   npm run bench:cache -- stream [dtype]               1,000,000 tokens through a window of 4,096
 *   npm run bench:cache -- memory                       dispose() returns the memory at once; an arena beyond 4 GiB
 */
import { backend } from '../../lib';
import type { CacheDType } from '../../lib';
import { CACHE_DTYPES, isCacheDType } from '../../lib/core/dtype';
import { requirePrecision } from '../../lib/core/precision';
import { memory } from './memory';
import { sharedPrefix } from './shared-prefix';
import { stream } from './stream';

function dtypes(name: string | undefined, otherwise: readonly CacheDType[]): readonly CacheDType[] {
  if (name === undefined) return otherwise;
  if (isCacheDType(name)) return [name];
  throw new Error(`${name} is none of ${CACHE_DTYPES.join(', ')}`);
}

function main([what, dtype, precision = 'exact']: string[]): boolean {
  const { kind, isa, threads } = backend();
  console.log(`${kind} ${isa}, ${threads} threads`);
  switch (what) {
    case 'shared':
      return dtypes(dtype, ['f32', 'bf16', 'q8', 'q4'])
        .map((d) => sharedPrefix(d, requirePrecision(precision)))
        .every(Boolean);
    case 'stream':
      return dtypes(dtype, ['f16', 'q8']).map(stream).every(Boolean);
    case 'memory':
      return memory();
    default:
      throw new Error('usage: npm run bench:cache -- shared|stream|memory [dtype]');
  }
}

process.exitCode = main(process.argv.slice(2)) ? 0 : 1;
