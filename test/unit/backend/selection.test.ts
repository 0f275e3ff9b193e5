/** Which backend is chosen, in processes of their own: the choice is made once per process, from its environment. */
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { packageRoot } from '../../../lib/backend/package-root';
import type { BackendInfo } from '../../../lib/backend/contract';
import { compiledRoot, runProgram } from '../../support/child';

const UNFORCED = { GQA_BACKEND: '', GQA_ISA: '', GQA_THREADS: '', GQA_PREBUILD: '' };

type Outcome = Partial<BackendInfo> & { code?: string; message?: string };

/** What backend() returns, or the code and message it throws, with the library at `library`. */
function choose(env: Record<string, string>, library = join(compiledRoot, 'lib')): Outcome {
  const { status, stdout, stderr } = runProgram(
    `const { backend } = require(${JSON.stringify(join(library, 'backend/index.js'))});
     try { console.log(JSON.stringify(backend())); }
     catch ({ name, code, message }) { console.log(JSON.stringify({ name, code, message })); }`,
    { ...UNFORCED, ...env },
  );
  if (status !== 0) throw new Error(stderr);
  return JSON.parse(stdout) as Outcome;
}

const chosen = choose({});
const withAddon = chosen.kind === 'native' ? test : test.skip;
if (chosen.kind !== 'native') console.warn(`tests of the native choice skipped: ${chosen.reason}`);

describe('GQA_BACKEND', () => {
  test('js gives the JavaScript backend and says who asked for it', () => {
    const info = choose({ GQA_BACKEND: 'js' });
    expect(info).toMatchObject({ kind: 'js', isa: 'js', threads: 1 });
    expect(info.reason).toContain('GQA_BACKEND=js');
  });

  test('an unknown name is refused', () => {
    const { code, message } = choose({ GQA_BACKEND: 'cuda' });
    expect(code).toBe('BACKEND_UNAVAILABLE');
    expect(message).toContain('GQA_BACKEND=cuda');
  });

  withAddon('native says which file, instruction set and threads it runs, and why', () => {
    const info = choose({ GQA_BACKEND: 'native' });
    expect(info.kind).toBe('native');
    expect(info.reason).toMatch(/gqa\.node: .*affinity \d+, GQA_THREADS unset/);
  });
});

describe('GQA_ISA', () => {
  withAddon('scalar can be had anywhere', () => {
    expect(choose({ GQA_ISA: 'scalar' })).toMatchObject({ kind: 'native', isa: 'scalar' });
  });

  withAddon.each(['nonsense', process.arch === 'arm64' ? 'avx2' : 'neon'])(
    '%s is refused',
    (isa) => {
      const { code, message } = choose({ GQA_ISA: isa });
      expect(code).toBe('BACKEND_UNAVAILABLE');
      expect(message).toContain(`GQA_ISA=${isa}`);
    },
  );

  test('no instruction set can be had on the JavaScript backend', () => {
    expect(choose({ GQA_BACKEND: 'js', GQA_ISA: 'scalar' }).code).toBe('BACKEND_UNAVAILABLE');
  });
});

describe('GQA_THREADS', () => {
  withAddon.each([1, 3])('%d is obeyed, whatever the machine has', (threads) => {
    const info = choose({ GQA_THREADS: String(threads) });
    expect(info.threads).toBe(threads);
    expect(info.reason).toContain(`GQA_THREADS ${threads}`);
  });

  withAddon.each(['0', '-2', '1.5', 'many', '2 ', '100000'])('%j is refused', (threads) => {
    const { code, message } = choose({ GQA_THREADS: threads });
    expect(code).toBe('BACKEND_UNAVAILABLE');
    expect(message).toContain(`GQA_THREADS=${threads}`);
  });

  test('the JavaScript backend has one thread', () => {
    expect(choose({ GQA_BACKEND: 'js', GQA_THREADS: '1' }).threads).toBe(1);
    expect(choose({ GQA_BACKEND: 'js', GQA_THREADS: '2' }).code).toBe('BACKEND_UNAVAILABLE');
  });

  withAddon('an isolate that asks for other threads than the process has is refused', () => {
    const library = JSON.stringify(join(compiledRoot, 'lib/backend/index.js'));
    const { status, stdout } = runProgram(
      `const { Worker } = require('node:worker_threads');
       require(${library}).backend();
       const source = 'try { require(' + JSON.stringify(${library}) + ').backend() } catch (e) { console.log(e.message) }';
       new Worker(source, { eval: true, env: { ...process.env, GQA_THREADS: '1' } });`,
      { ...UNFORCED, GQA_THREADS: '2' },
    );
    expect(status).toBe(0);
    expect(stdout).toContain('GQA_THREADS=1 cannot be had: this process already runs 2 threads');
  });
});

describe('loading', () => {
  let root: string;
  let library: string;

  /** A package without a binary: what a clone is before the first build. */
  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'gqa-root-'));
    library = join(root, 'dist', 'lib');
    cpSync(join(compiledRoot, 'lib'), library, { recursive: true });
    for (const name of ['package.json', 'scripts', 'node_modules']) {
      symlinkSync(resolve(packageRoot(), name), join(root, name));
    }
  });
  afterEach(() => rmSync(root, { recursive: true }));

  function writeBinary(folder: string, content: string): void {
    mkdirSync(join(root, folder), { recursive: true });
    writeFileSync(join(root, folder, 'gqa.node'), content);
  }

  test('without a binary JavaScript serves, and the reason names every attempt', () => {
    const info = choose({}, library);
    expect(info.kind).toBe('js');
    expect(info.reason).toContain('build/Release/gqa.node: not there');
    expect(info.reason).toContain(
      `prebuilds/${process.platform}-${process.arch}/gqa.node: not there`,
    );
  });

  test('without a toolchain the reason names what is missing', () => {
    const info = choose({ PATH: '/nonexistent', CXX: '' }, library);
    expect(info.kind).toBe('js');
    expect(info.reason).toContain('none can be built');
    if (process.platform !== 'win32') {
      for (const tool of ['g++ or clang++', 'make', 'cmake >= 3.18'])
        expect(info.reason).toContain(tool);
    }
  });

  test('a binary that does not load is passed over, and said why', () => {
    writeBinary('build/Release', 'not a shared library');
    const info = choose({}, library);
    expect(info.kind).toBe('js');
    expect(info.reason).toMatch(/build\/Release\/gqa\.node: Error: /);
  });

  withAddon('a broken build gives way to the prebuild', () => {
    writeBinary('build/Release', 'not a shared library');
    const folder = join(root, 'prebuilds', `${process.platform}-${process.arch}`);
    mkdirSync(folder, { recursive: true });
    const [file] = chosen.reason!.split(': ');
    cpSync(resolve(packageRoot(), file), join(folder, 'gqa.node'));
    const info = choose({}, library);
    expect(info.kind).toBe('native');
    expect(info.reason).toContain('prebuilds');
  });

  test('native cannot be forced without a binary', () => {
    const { code, message } = choose({ GQA_BACKEND: 'native' }, library);
    expect(code).toBe('BACKEND_UNAVAILABLE');
    expect(message).toContain('build/Release/gqa.node: not there');
  });

  test('GQA_PREBUILD without a binary in it is refused', () => {
    const { code, message } = choose({ GQA_PREBUILD: join(root, 'elsewhere') }, library);
    expect(code).toBe('BACKEND_UNAVAILABLE');
    expect(message).toContain('GQA_PREBUILD=');
  });

  test('a forced instruction set or thread count is not dropped with the addon', () => {
    expect(choose({ GQA_ISA: 'scalar' }, library).code).toBe('BACKEND_UNAVAILABLE');
    expect(choose({ GQA_THREADS: '2' }, library).code).toBe('BACKEND_UNAVAILABLE');
  });
});
