/** Places in the repository, found from wherever the tests were compiled to. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';

function findPackageRoot(from: string): string {
  return existsSync(join(from, 'package.json')) ? from : findPackageRoot(dirname(from));
}

export const packageRoot = findPackageRoot(__dirname);
export const embeddedModel = join(packageRoot, 'models/stories');
export const goldenFolder = join(packageRoot, 'test/golden');
/** Reference material that may lie beside a checkout; tests that want it are skipped where it does not. */
export const sharedFolder = join(packageRoot, '../shared');

/** Says on stderr why tests are skipped, once a reason, and returns jest's skipping `test`. */
export function skipped(reason: string): jest.It {
  process.stderr.write(`skipped: ${reason}\n`);
  return test.skip;
}
