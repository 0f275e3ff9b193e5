/** Help, version, usage errors and exit codes, as a shell sees them. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../support/package';
import { gqa } from './cli-process';

describe('help', () => {
  test.each([
    [['--help'], ['gqa generate', 'GQA_THREADS', 'Exit codes']],
    [
      ['generate', '--help'],
      ['--max-tokens', '--repetition-penalty', 'Examples:'],
    ],
    [
      ['bench', '--help'],
      ['attention', 'linear', 'model', 'Examples:'],
    ],
    [
      ['bench', 'attention', '--help'],
      ['--heads', '--context', '32/8/128'],
    ],
    [
      ['info', '--help'],
      ['--json', 'Examples:'],
    ],
  ])('%j is on stdout and succeeds', (args, mentions) => {
    const { status, stdout, stderr } = gqa(args);
    expect(stderr).toBe('');
    expect(status).toBe(0);
    for (const mention of mentions) expect(stdout).toContain(mention);
  });

  test('needs no backend', () => {
    expect(gqa(['--help'], { env: { GQA_BACKEND: 'nonsense' } }).status).toBe(0);
  });
});

test('--version prints the version of package.json', () => {
  const { version } = JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8'));
  const { status, stdout } = gqa(['--version']);
  expect([status, stdout]).toEqual([0, `${version}\n`]);
});

describe('wrong usage exits with 2, prints nothing on stdout and names the fault', () => {
  test.each([
    [[], ['Usage: gqa']],
    [['frobnicate'], ["unknown command 'frobnicate'"]],
    [['generate', '--frobnicate'], ["unknown option '--frobnicate'"]],
    [['generate', 'one', 'two'], ['too many arguments']],
    [
      ['generate', '--max-tokens'],
      ['--max-tokens', 'argument missing'],
    ],
    [
      ['generate', '--max-tokens', 'ten'],
      ['--max-tokens', "'ten'", 'whole number'],
    ],
    [
      ['generate', '--top-p', '1.5'],
      ['--top-p', "'1.5'", '<= 1'],
    ],
    [
      ['generate', '--temperature', '-1'],
      ['--temperature', "'-1'", '>= 0'],
    ],
    [
      ['generate', '--kv-dtype', 'f8'],
      ['--kv-dtype', "'f8'", 'f32, f16, bf16'],
    ],
    [
      ['generate', '--precision', 'low'],
      ['--precision', "'low'", 'exact, fast'],
    ],
    [
      ['generate', '--sink-tokens', '4'],
      ['--sink-tokens', '--window'],
    ],
    [
      ['generate', '--model', 'nowhere'],
      ['PROMPT', '--model'],
    ],
    [
      ['generate', '--kv-dtype', 'q8/q4/q4'],
      ['--kv-dtype', "'q8/q4/q4'", 'K/V'],
    ],
    [['perplexity'], ['--text']],
    [
      ['perplexity', '--text', 'x', '--kv-dtype', 'f32,q9'],
      ['--kv-dtype', "'f32,q9'", 'f32, f16, bf16'],
    ],
    [
      ['perplexity', '--text', 'x', '--sink-tokens', '4'],
      ['--sink-tokens', '--window'],
    ],
    [
      ['perplexity', '--text', 'x', '--tokens', '1'],
      ['--tokens', "'1'", '>= 2'],
    ],
    [
      ['bench', 'frobnicate'],
      ["'frobnicate'", 'attention, linear or model'],
    ],
    [
      ['bench', '--heads', '9/2/64'],
      ['--heads', "'9/2/64'", '9 is not one of 2'],
    ],
    [
      ['bench', '--context', '512,0'],
      ['--context', "'512,0'", 'whole number >= 1'],
    ],
    [
      ['bench', '--dtype', 'q9'],
      ['--dtype', "'q9'", 'f32, f16, bf16'],
    ],
    [
      ['bench', '--op', 'encode'],
      ['--op', "'encode'", 'decode, prefill'],
    ],
    [
      ['bench', '--format', 'xml'],
      ['--format', "'xml'", 'md, csv, json'],
    ],
    [
      ['bench', '--seconds', '0'],
      ['--seconds', "'0'", '> 0'],
    ],
    [
      ['bench', '--threads', '100000'],
      ['--threads', "'100000'", 'at most'],
    ],
    [
      ['bench', 'linear', '--shape', '4096'],
      ['--shape', "'4096'", '4096x11008'],
    ],
    [
      ['bench', 'linear', '--shape', '8x40', '--dtype', 'q8_0'],
      ['--shape', "'8x40'", 'blocks of 32'],
    ],
    [['info', '--yaml'], ["unknown option '--yaml'"]],
  ])('%j', (args, mentions) => {
    const { status, stdout, stderr } = gqa(args);
    expect(stdout).toBe('');
    for (const mention of mentions) expect(stderr).toContain(mention);
    expect(status).toBe(2);
  });
});

describe('a failed operation exits with 1 and one line', () => {
  test('a backend that cannot be had', () => {
    const { status, stdout, stderr } = gqa(['info'], { env: { GQA_BACKEND: 'gpu' } });
    expect([status, stdout]).toEqual([1, '']);
    expect(stderr).toMatch(/^gqa: BACKEND_UNAVAILABLE: .*GQA_BACKEND=gpu.*\n$/);
  });

  test('its stack under GQA_DEBUG=1', () => {
    const { status, stderr } = gqa(['info'], { env: { GQA_BACKEND: 'gpu', GQA_DEBUG: '1' } });
    expect(status).toBe(1);
    expect(stderr).toMatch(/\n\s+at /);
  });
});

describe('info', () => {
  test('--json is one document', () => {
    const { status, stdout, stderr } = gqa(['info', '--json'], {
      env: { GQA_BACKEND: 'js', GQA_ISA: '', GQA_THREADS: '' },
    });
    expect([status, stderr]).toEqual([0, '']);
    const info = JSON.parse(stdout);
    expect(info.backend).toEqual({
      kind: 'js',
      isa: 'js',
      threads: 1,
      reason: expect.stringContaining('GQA_BACKEND=js'),
    });
    expect(info.node).toBe(process.version);
    expect(info.platform).toBe(process.platform);
    expect(info.cpu.architecture).toBe(process.arch);
    expect(info.cpu.usableCpus).toBeGreaterThanOrEqual(1);
    expect(info.memory.totalBytes).toBeGreaterThan(2 ** 20);
    expect(info.memory.availableBytes).toBeGreaterThan(0);
    expect(info.memory.availableBytes).toBeLessThanOrEqual(info.memory.totalBytes);
  });

  test('text names every part', () => {
    const { status, stdout } = gqa(['info']);
    expect(status).toBe(0);
    for (const name of ['gqa:', 'backend:', 'threads:', 'cpu:', 'memory:', 'node:']) {
      expect(stdout).toContain(name);
    }
  });
});
