/** The peers live in a folder of their own under the user's cache, never in this package. */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

const NODE_LLAMA_CPP = '3.22.1';
const NPM_PACKAGES: Readonly<Record<string, string>> = {
  'onnxruntime-node': '1.30.0',
  'node-llama-cpp': NODE_LLAMA_CPP,
  // Calls ggml's functions in the libraries that node-llama-cpp ships.
  koffi: '3.3.4',
};
const TORCH = 'torch==2.13.0';
/** Wheels without CUDA, which PyPI itself does not have for Linux. */
const TORCH_INDEX = 'https://download.pytorch.org/whl/cpu';

export function peersFolder(): string {
  const cache = process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache');
  return process.env.GQA_PEERS ?? join(cache, 'gqa-peers');
}

export interface InstalledPeers {
  /** Folder whose node_modules holds the npm packages; null with the reason in `missing`. */
  npm: string | null;
  /** A Python that imports torch. */
  python: string | null;
  missing: string[];
}

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** node-llama-cpp's prebuilt CPU libraries come as a package for each platform; those for GPUs are left out. */
function nodePackages(): Record<string, string> {
  return {
    ...NPM_PACKAGES,
    [`@node-llama-cpp/${process.platform}-${process.arch}`]: NODE_LLAMA_CPP,
    [`@koromix/koffi-${process.platform}-${process.arch}`]: NPM_PACKAGES.koffi,
  };
}

function installNpm(folder: string): void {
  const manifest = JSON.stringify({ private: true, dependencies: nodePackages() }, null, 2);
  const file = join(folder, 'package.json');
  const done = join(folder, 'installed.json');
  if (existsSync(done) && readFileSync(done, 'utf8') === manifest) return;
  mkdirSync(folder, { recursive: true });
  writeFileSync(file, manifest);
  say(`installing ${Object.keys(NPM_PACKAGES).join(', ')} into ${folder}`);
  // Their install scripts only fetch CUDA libraries or build what the packages already hold.
  const flags = ['--ignore-scripts', '--omit=optional', '--no-audit', '--no-fund'];
  execFileSync('npm', ['install', ...flags], { cwd: folder, stdio: ['ignore', 2, 2] });
  writeFileSync(done, manifest);
}

function runs(program: string, programArguments: string[]): boolean {
  return spawnSync(program, programArguments, { stdio: 'ignore' }).status === 0;
}

function installTorch(folder: string): string {
  const python = join(folder, 'bin', 'python');
  const works = () => runs(python, ['-c', 'import torch, numpy']);
  if (works()) return python;
  say(`installing ${TORCH} into ${folder}`);
  execFileSync('python3', ['-m', 'venv', folder], { stdio: ['ignore', 2, 2] });
  const pip = (...more: string[]) =>
    runs(python, ['-m', 'pip', 'install', '-q', '--retries', '1', ...more]);
  if (!pip(TORCH, 'numpy', '--extra-index-url', TORCH_INDEX)) pip(TORCH, 'numpy');
  if (!works()) throw new Error(`pip could not install ${TORCH}`);
  return python;
}

/** Installs what is not there yet. A peer that cannot be had is left out, with the reason. */
export function installPeers({ torch = true } = {}): InstalledPeers {
  const missing: string[] = [];
  const attempt = <T>(name: string, install: () => T): T | null => {
    try {
      return install();
    } catch (error) {
      missing.push(`${name}: ${String(error)}`);
      return null;
    }
  };
  const npm = join(peersFolder(), 'npm');
  const hasNpm = attempt('npm packages', () => {
    installNpm(npm);
    return npm;
  });
  const python = torch
    ? attempt('PyTorch', () => installTorch(join(peersFolder(), 'torch')))
    : null;
  return { npm: hasNpm, python, missing };
}
