/** The install step on machines that cannot build: it succeeds, and names what is missing. */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { packageRoot } from '../../../lib/backend/package-root';

const root = packageRoot();
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'gqa-install-'));
  mkdirSync(join(folder, 'bin'));
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

/** A program on PATH that prints `text`. */
function fakeTool(name: string, text = ''): void {
  writeFileSync(join(folder, 'bin', name), `#!/bin/sh\necho '${text}'\n`, { mode: 0o755 });
}

function runNode(args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, {
    encoding: 'utf8',
    env: { ...process.env, PATH: join(folder, 'bin'), CXX: '', GQA_PREBUILD: '' },
  });
  return { status, stdout, stderr };
}

function obstacle(): unknown {
  const toolchain = join(root, 'scripts', 'toolchain.js');
  const program = `console.log(JSON.stringify(require(${JSON.stringify(toolchain)}).buildObstacle()))`;
  return JSON.parse(runNode(['-e', program]).stdout);
}

const onUnix = process.platform === 'win32' ? describe.skip : describe;

onUnix('what a build needs', () => {
  test('nothing on PATH: every tool is named', () => {
    expect(obstacle()).toBe('not found: g++ or clang++, make, cmake >= 3.18');
  });

  test('one tool missing: it alone is named', () => {
    fakeTool('clang++');
    fakeTool('cmake', 'cmake version 3.18.4');
    expect(obstacle()).toBe('not found: make');
  });

  test('a cmake that is too old counts as missing', () => {
    fakeTool('g++');
    fakeTool('make');
    fakeTool('cmake', 'cmake version 3.17.9');
    expect(obstacle()).toBe('not found: cmake >= 3.18');
  });

  test('all there: nothing stands in the way', () => {
    fakeTool('g++');
    fakeTool('make');
    fakeTool('cmake', 'cmake version 4.1.0');
    expect(obstacle()).toBeNull();
  });
});

onUnix('the install step', () => {
  /** A package as it is installed: no binary, dependencies beside it. */
  function unpackedPackage(): string {
    const installed = join(folder, 'gqa');
    for (const part of ['scripts', 'native', 'package.json', 'CMakeLists.txt']) {
      cpSync(join(root, part), join(installed, part), { recursive: true });
    }
    symlinkSync(join(root, 'node_modules'), join(installed, 'node_modules'));
    return installed;
  }

  test('without tools: exit status 0, one line that names them and the JS backend', () => {
    const { status, stdout, stderr } = runNode([join(unpackedPackage(), 'scripts', 'install.js')]);
    expect(status).toBe(0);
    expect(stdout).toBe('');
    expect(stderr).toBe(
      'gqa: cannot build the native addon (not found: g++ or clang++, make, cmake >= 3.18); the JS backend will be used\n',
    );
  });

  test('with tools that fail: exit status 0, and how to see why', () => {
    for (const tool of ['g++', 'make']) fakeTool(tool);
    fakeTool('cmake', 'cmake version 3.25.1');
    const installed = unpackedPackage();
    const { status, stderr } = runNode([join(installed, 'scripts', 'install.js')]);
    expect(status).toBe(0);
    expect(stderr).toContain('building the native addon failed; the JS backend will be used');
    expect(stderr).toContain(`cd ${installed} && npx cmake-js compile`);
  });
});
