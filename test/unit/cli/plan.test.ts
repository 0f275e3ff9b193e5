/** gqa plan as a process: tables, JSON, page, explanations, and what is refused. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { InvalidArgumentError } from 'commander';
import { byteSize } from '../../../lib/cli/commands/plan';
import { embeddedModel } from '../../../lib/model/embedded';
import { all, parsePage, requireSelfContained, textsOf } from '../../support/html-page';
import { explanationText } from '../../../lib/cli/plan-report';
import { explain, TOPICS } from '../../../lib/toolkit/plan';
import { gqa } from './cli-process';

let folder: string;
beforeAll(() => (folder = mkdtempSync(join(tmpdir(), 'gqa-plan-cli-'))));
afterAll(() => rmSync(folder, { recursive: true }));

const GIVEN = ['--memory', '40GB', '--bandwidth', '50'];

test('tables: parameters, caches, KV heads', () => {
  const { status, stdout, stderr } = gqa([
    ...['plan', 'llama-2-70b', '--context', '4096', '--dtype', 'f16,q8/q4', ...GIVEN],
  ]);
  expect([status, stderr]).toEqual([0, '']);
  expect(stdout).toContain('llama-2-70b (preset): 80 layers, 64 query heads and 8 KV of 128');
  expect(stdout).toContain('68,976,648,192 parameters; 128 GiB as bf16');
  expect(stdout).toMatch(/\| +4,096 \| f16 +\| +327,680 \| +327,680 \| +1\.25 GiB \|/);
  expect(stdout).toContain('2 x 80 layers x 8 KV heads x 128 x 2 bytes (f16) = 327,680 bytes');
  const kinds = [...stdout.matchAll(/^\| +(\d+) \| +\d+ \| (M[HQ]A|GQA)/gm)].map((row) => row[1]);
  expect(kinds).toEqual(['64', '32', '16', '8', '4', '2', '1']);
  expect(stdout).toContain('GQA, as it is');
  expect(stdout).toContain('not measured');
});

test('JSON: one document, the same numbers', () => {
  const { status, stdout } = gqa([
    ...['plan', 'mistral-7b', '--context', '8192', '--dtype', 'bf16', '--batch', '4', '--json'],
    ...['--shared-prefix', '640', '--weights', 'q4_0', '--kv-heads', '4', ...GIVEN],
  ]);
  expect(status).toBe(0);
  const { model, loads, weights, machine, batch, sharedPrefix } = JSON.parse(stdout);
  expect([model.layerKvHeads[0], weights.dtype, batch, sharedPrefix]).toEqual([4, 'q4_0', 4, 640]);
  expect(machine).toMatchObject({ memory: 40e9, bandwidth: 50e9 });
  expect(loads).toHaveLength(1);
  expect(loads[0]).toMatchObject({ context: 8192, bytesPerToken: 65_536, fits: true });
  const read = weights.read + loads[0].readBytes;
  expect(loads[0].floorSeconds).toBeCloseTo(read / 50e9, 12);
});

test('a page with the tables and two pictures', () => {
  const path = join(folder, 'plan.html');
  const { status } = gqa([
    ...['plan', embeddedModel.path, '--context', '128,256,512', '--html', path, ...GIVEN],
    ...['--explain', 'entropy'],
  ]);
  expect(status).toBe(0);
  const html = readFileSync(path, 'utf8');
  requireSelfContained(html);
  const document = parsePage(html);
  expect(textsOf(document, 'h1')).toEqual(['gqa plan: stories']);
  expect(textsOf(document, 'figcaption')).toEqual(['Cache by context', 'Cache by KV heads']);
  expect(all(document, 'circle').length).toBe(3 * 5);
  expect(textsOf(document, 'h2').at(-1)).toContain('entropy is below 3.5');
});

test('the bandwidth of this machine, where none is given; damage from reports', () => {
  const path = join(folder, 'damage.json');
  const bytes = { before: 6 * 32 * 6 * 4, after: 6 * 32 * 2 * 4 };
  writeFileSync(
    path,
    JSON.stringify({ crossEntropy: { before: 2.16, after: 2.5 }, kl: 0.3, bytesPerToken: bytes }),
  );
  const { status, stdout } = gqa([
    ...['plan', embeddedModel.path, '--dtype', 'f16', '--report', path],
  ]);
  expect(status).toBe(0);
  expect(stdout).toMatch(/GB\/s are read/);
  expect(stdout).toMatch(/\| +2 \| +3 \| GQA, as it is .*\| 2\.160 to 2\.500 \| 0\.300 \|/);
});

describe('--explain', () => {
  test.each([
    ['70b', ['327,680 bytes a token', '671,088,640 bytes = 0.671 GB', '5.369 GB', '40 GiB']],
    ['7b', ['524,288 bytes a token', '1.074 GB', '0.268 GB', 'about 25 sequences']],
    ['mixtral', ['131,072', '46.7 G parameters a token goes through 12.9 G']],
    ['entropy', ['33.1 keys', '0.42 of ln 4,096']],
    ['g-opt', ['8,192: 32', '32,768: 64', '45.25', 'mistral-7b']],
    ['falcon', ['x = 4480.5', '71 heads: x = 4,544']],
    ['ffn', ['they buy 2,560, from 11,008 to 13,568', 'The model has 13,696']],
  ])('%s', (topic, figures) => {
    const text = explanationText(explain(topic));
    for (const figure of figures) expect(text).toContain(figure);
  });

  test('one topic, or all of them as JSON', () => {
    const { status, stdout } = gqa(['plan', '--explain', '70b']);
    expect([status, stdout]).toEqual([0, explanationText(explain('70b'))]);
    const { explanations } = JSON.parse(gqa(['plan', '--explain', '--json']).stdout);
    expect(explanations).toEqual(TOPICS.map(explain));
  });
});

test.each([
  ['no model', [], 2, "missing argument 'model'"],
  ['an unknown topic', ['--explain', '71b'], 2, 'Expected one of 70b, 7b'],
  ['an unknown preset', ['llama-2-7', ...GIVEN], 1, 'did you mean llama-2-7b or llama-2-70b'],
  ['a size that is none', ['falcon-7b', '--memory', '16XB'], 2, 'such as 16GiB'],
  ['KV heads that do not divide', ['falcon-7b', '--kv-heads', '8'], 1, 'HEADS_NOT_DIVISIBLE'],
  ['a context of nothing', ['falcon-7b', '--context', '0'], 2, '>= 1'],
  ['a report that is not there', ['falcon-7b', '--report', '/no/such'], 1, 'INVALID_FILE'],
  [
    'a page that cannot be written',
    ['smollm2-135m', '--html', '/no/such/folder/plan.html', ...GIVEN],
    1,
    'WRITE_FAILED',
  ],
])('%s', (_, args, code, message) => {
  const { status, stdout, stderr } = gqa(['plan', ...args]);
  expect([status, stdout]).toEqual([code, '']);
  expect(stderr).toContain(message);
});

test('sizes', () => {
  expect(['1', '2K', '1.5MiB', '16GB', '16 gib', '1T'].map(byteSize)).toEqual([
    ...[1, 2048, 1_572_864, 16e9, 2 ** 34, 2 ** 40],
  ]);
  for (const wrong of ['', '0', '-1', 'GiB', '1e9', '1Q', '9999999TB', '0.4']) {
    expect(() => byteSize(wrong)).toThrow(InvalidArgumentError);
  }
});
