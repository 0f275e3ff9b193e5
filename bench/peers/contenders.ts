/** Who takes part in which case of attention, and the process that stands for each. */
import type { CacheDType } from '../../lib/core/dtype';
import { join } from 'node:path';
import { packageRoot } from '../../lib/backend/package-root';
import type { Precision } from '../../lib/core/precision';
import type { PeerOp } from './attention-task';
import type { InstalledPeers } from './folder';
import { Contender } from './protocol';

export const OURS = 'gqa';

export interface ContenderEntry {
  name: string;
  /** The project that it belongs to: the best of its entries stands for it. */
  peer: string;
  dtypes: Readonly<Record<PeerOp, readonly CacheDType[]>>;
  start: () => Contender;
  precision?: Precision;
}

const FLOATS = ['f32', 'f16', 'bf16'] as const;
const ALL = [...FLOATS, 'q8', 'q4'] as const;

const worker = (name: string) => join(__dirname, 'workers', `${name}.js`);

function pytorch(python: string, variant: string): ContenderEntry {
  const script = join(packageRoot(), 'bench', 'peers', 'workers', 'pytorch.py');
  const name = `pytorch ${variant}`;
  return {
    name,
    peer: 'pytorch',
    dtypes: { decode: FLOATS, prefill: FLOATS },
    start: () => new Contender(name, [python, '-u', script, '--variant', variant]),
  };
}

/** The attention of the built package in `folder`. */
export function gqaEntry(
  name: string,
  folder: string,
  precision: Precision = 'exact',
): ContenderEntry {
  return {
    name,
    peer: OURS,
    // Quantised storage knows one precision only.
    dtypes: { decode: precision === 'exact' ? ALL : FLOATS, prefill: FLOATS },
    start: () => new Contender(name, [process.execPath, worker('gqa'), folder, precision]),
    precision,
  };
}

/** Ours first. */
export function contenders({ npm, python }: InstalledPeers): ContenderEntry[] {
  const node =
    (name: string, file: string, ...more: string[]) =>
    () =>
      new Contender(name, [process.execPath, worker(file), ...more]);
  const entries = [gqaEntry(OURS, packageRoot()), gqaEntry(`${OURS} fast`, packageRoot(), 'fast')];
  if (python !== null) entries.push(pytorch(python, 'gqa'), pytorch(python, 'folded'));
  if (npm !== null) {
    entries.push(
      {
        name: 'onnxruntime-node',
        peer: 'onnxruntime-node',
        dtypes: { decode: ['f32', 'f16', 'q8', 'q4'], prefill: ['f32', 'f16'] },
        start: node('onnxruntime-node', 'onnxruntime', npm),
      },
      {
        name: 'node-llama-cpp kernels',
        peer: 'node-llama-cpp',
        dtypes: { decode: ALL, prefill: FLOATS },
        start: node('node-llama-cpp kernels', 'ggml', npm),
      },
    );
  }
  return entries;
}
