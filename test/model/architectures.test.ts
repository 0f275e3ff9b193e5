/** Every architecture against Hugging Face transformers, on tiny checkpoints (scripts/make-golden.py), native and JS. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { packageRoot } from '../../lib/backend/package-root';
import { ARCHITECTURES } from '../../lib/model/arch';
import { openCheckpoint } from '../../lib/model/checkpoint';
import { ARCHITECTURE_ROWS } from '../support/architecture-docs';
import { figuresOn, type ArchitectureResult } from '../support/architecture-figures';
import {
  ARCHITECTURE_GOLDENS,
  goldenArchitectures,
  readArchitectureGolden,
  type ArchitectureFigures,
} from '../support/golden-architectures';
import { ARCHITECTURE_LOGITS } from '../tolerances';

const NAMES = goldenArchitectures();

describe.each(['native', 'js'] as const)('%s', (backend) => {
  let results: Record<string, ArchitectureResult>;
  beforeAll(() => {
    results = figuresOn(backend, NAMES);
  });

  test.each(NAMES)('%s: logits and greedy tokens', (name) => {
    const result = results[name];
    if ('code' in result) throw new Error(`${result.code}: ${result.message}`);
    const { greedy, ...errors } = result satisfies ArchitectureFigures;
    for (const [way, error] of Object.entries(errors)) {
      // NaN arrives as null, which is less than any number.
      if (typeof error !== 'number' || error > ARCHITECTURE_LOGITS) {
        throw new Error(`${way}: logits are off by ${error}`);
      }
    }
    expect(greedy).toEqual(readArchitectureGolden(name).greedy);
  });
});

test('the table in the docs has every architecture and every golden', () => {
  const docs = readFileSync(join(packageRoot(), 'docs', 'architectures.md'), 'utf8');
  expect(ARCHITECTURE_ROWS.map(({ name }) => name).sort()).toEqual(
    ARCHITECTURES.map(({ name }) => name).sort(),
  );
  expect(ARCHITECTURE_ROWS.flatMap(({ goldens }) => goldens).sort()).toEqual(NAMES);
  for (const { name, goldens } of ARCHITECTURE_ROWS) {
    const row = docs.split('\n').find((line) => line.startsWith(`| \`${name}\` `)) ?? '';
    for (const golden of goldens) expect(row).toContain(`\`${golden}\``);
    const figures = [...row.matchAll(/\d\.\de-\d+/g)].map(Number);
    expect(figures.length).toBeGreaterThanOrEqual(2);
    for (const figure of figures) expect(figure).toBeLessThan(ARCHITECTURE_LOGITS);
  }
});

/** The same checkpoint with the config that transformers writes of it today. */
test.each(NAMES)('%s: the config as transformers saves it', (name) => {
  const folder = join(ARCHITECTURE_GOLDENS, name);
  if (!existsSync(join(folder, 'config.saved.json'))) {
    // ChatGLM2 is no class of transformers.
    expect(name).toBe('chatglm2');
    return;
  }
  const copy = mkdtempSync(join(tmpdir(), 'gqa-saved-'));
  try {
    for (const file of readdirSync(folder).filter((file) => file.startsWith('model'))) {
      symlinkSync(join(folder, file), join(copy, file));
    }
    symlinkSync(join(folder, 'config.saved.json'), join(copy, 'config.json'));
    const [saved, plain] = [copy, folder].map((path) => {
      const { config, weights } = openCheckpoint(path);
      weights.close();
      return config;
    });
    expect(saved).toEqual(plain);
  } finally {
    rmSync(copy, { recursive: true });
  }
});
