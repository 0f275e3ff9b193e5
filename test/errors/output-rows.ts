/** Outputs that must be refused. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { AtomicOutput } from '../../lib/format/atomic-output';
import type { Row } from './rows';

/** `folder` takes files. */
export function outputRows(folder: () => string): Row[] {
  const begin = (out: string, sources: string[] = []) =>
    new AtomicOutput(out, { kind: 'folder', sources });
  return [
    [
      'OUTPUT_EXISTS',
      /there$/,
      'an output that is there',
      () => {
        mkdirSync(join(folder(), 'there'), { recursive: true });
        begin(join(folder(), 'there'));
      },
    ],
    ['WRITE_FAILED', /gone.out$/, 'a folder that is not', () => begin(join(folder(), 'gone/out'))],
    [
      'INVALID_ARGUMENT',
      'out',
      'an output inside its source',
      () => begin(join(folder(), 'out'), [folder()]),
    ],
  ];
}
