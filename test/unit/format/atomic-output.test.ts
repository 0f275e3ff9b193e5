import { spawnSync } from 'node:child_process';
import fs, {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { GqaError } from '../../../lib/core/errors';
import {
  AtomicOutput,
  writeAtomically,
  type OutputOptions,
} from '../../../lib/format/atomic-output';
import { writeWholeFile } from '../../../lib/format/output-file';
import { compiledRoot } from '../../support/child';
import { temporaryFolder } from './build-files';

const path = temporaryFolder();

let count = 0;
/** A folder of its own for each test. */
function place(): string {
  const folder = path(`place-${count++}`);
  mkdirSync(folder);
  return folder;
}

function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof GqaError) return error.code;
    throw error;
  }
  return 'none';
}

const FOLDER: OutputOptions = { kind: 'folder', mark: 'config.json' };
const fill = (text: string) => (partial: string) =>
  writeFileSync(join(partial, 'config.json'), text);

describe('an output folder', () => {
  it('is not there before it is whole', () => {
    const folder = place();
    const out = join(folder, 'out');
    const output = new AtomicOutput(out, FOLDER);
    writeFileSync(join(output.partial, 'config.json'), '1');
    expect(existsSync(out)).toBe(false);
    output.commit();
    expect(readdirSync(folder)).toEqual(['out']);
    output.abort();
    expect(readFileSync(join(out, 'config.json'), 'utf8')).toBe('1');
  });

  it('leaves nothing where writing fails', () => {
    const folder = place();
    const fail = (partial: string) => {
      fill('1')(partial);
      throw new RangeError('on purpose');
    };
    expect(() => writeAtomically(join(folder, 'out'), FOLDER, fail)).toThrow('on purpose');
    expect(readdirSync(folder)).toEqual([]);
  });

  it('replaces another only where it may, and only a checkpoint', () => {
    const folder = place();
    const out = join(folder, 'out');
    writeAtomically(out, FOLDER, fill('1'));
    expect(codeOf(() => writeAtomically(out, FOLDER, fill('2')))).toBe('OUTPUT_EXISTS');
    writeFileSync(join(out, 'extra'), '');
    writeAtomically(out, { ...FOLDER, overwrite: true }, fill('3'));
    expect(readdirSync(folder)).toEqual(['out']);
    expect(readdirSync(out)).toEqual(['config.json']);
    expect(readFileSync(join(out, 'config.json'), 'utf8')).toBe('3');

    const home = join(folder, 'home');
    mkdirSync(home);
    writeFileSync(join(home, 'thesis.txt'), '');
    const over = { ...FOLDER, overwrite: true };
    expect(codeOf(() => writeAtomically(home, over, fill('4')))).toBe('OUTPUT_EXISTS');
    expect(readdirSync(home)).toEqual(['thesis.txt']);
    expect(codeOf(() => writeAtomically(home, { ...over, kind: 'file' }, () => 0))).toBe(
      'OUTPUT_EXISTS',
    );
  });

  it('is refused where another came to be meanwhile', () => {
    const folder = place();
    const out = join(folder, 'out');
    const output = new AtomicOutput(out, FOLDER);
    writeAtomically(out, FOLDER, fill('first'));
    fill('second')(output.partial);
    expect(codeOf(() => output.commit())).toBe('OUTPUT_EXISTS');
    expect(readFileSync(join(out, 'config.json'), 'utf8')).toBe('first');
    expect(readdirSync(folder)).toEqual(['out']);
  });
});

it('replaces a file in one step', () => {
  const out = join(place(), 'out.gguf');
  const write = (text: string) => (partial: string) => writeFileSync(partial, text);
  writeAtomically(out, { kind: 'file' }, write('1'));
  expect(codeOf(() => writeAtomically(out, { kind: 'file' }, write('2')))).toBe('OUTPUT_EXISTS');
  writeAtomically(out, { kind: 'file', overwrite: true }, write('3'));
  expect(readFileSync(out, 'utf8')).toBe('3');
});

it.each([
  ['the source', (source: string) => source],
  ['inside the source', (source: string) => join(source, 'out')],
  ['around the source', (source: string) => join(source, '..')],
  ['the source by a link', (source: string) => join(source, '../link')],
])('refuses an output that is %s', (_, out) => {
  const source = join(place(), 'in');
  mkdirSync(source);
  symlinkSync(source, join(source, '../link'));
  const options = { ...FOLDER, overwrite: true, sources: [source] };
  expect(codeOf(() => new AtomicOutput(out(source), options))).toBe('INVALID_ARGUMENT');
  expect(readdirSync(join(source, '..'))).toEqual(['in', 'link']);
});

describe('what dead runs left', () => {
  /** The id of a process that has ended. */
  const deadPid = (): number => spawnSync(process.execPath, ['-e', '']).pid;
  const stranger = (name: string, pid: number) =>
    name.replace(/-\d+-[0-9a-f]{8}/, `-${pid}-${'0'.repeat(8)}`);

  it('goes at the next run; what live runs or others write stays', () => {
    const folder = place();
    const out = join(folder, 'out');
    const live = new AtomicOutput(out, FOLDER);
    const name = basename(live.partial);
    const dead = name.replace(`-${process.pid}-`, `-${deadPid()}-`);
    const remote = stranger(name, deadPid());
    const oldRemote = stranger(name, deadPid() + 1);
    const foreign = '.out.partial-notes';
    for (const left of [dead, remote, oldRemote, foreign]) {
      mkdirSync(join(folder, left));
      fill('half')(join(folder, left));
    }
    const longAgo = new Date(Date.now() - 48 * 3600_000);
    utimesSync(join(folder, oldRemote, 'config.json'), longAgo, longAgo);
    utimesSync(join(folder, oldRemote), longAgo, longAgo);

    writeAtomically(out, FOLDER, fill('whole'));
    expect(readdirSync(folder).sort()).toEqual([name, remote, foreign, 'out'].sort());
    live.abort();
  });

  it('includes an old output that had stepped aside: it comes back unless a new one is there', () => {
    const folder = place();
    const out = join(folder, 'out');
    const probe = new AtomicOutput(out, FOLDER);
    probe.abort();
    const aside = probe.partial
      .replace('.partial-', '.replaced-')
      .replace(`-${process.pid}-`, `-${deadPid()}-`);
    mkdirSync(aside);
    fill('old')(aside);
    expect(codeOf(() => writeAtomically(out, FOLDER, fill('new')))).toBe('OUTPUT_EXISTS');
    expect(readFileSync(join(out, 'config.json'), 'utf8')).toBe('old');
    mkdirSync(aside);
    expect(codeOf(() => new AtomicOutput(out, FOLDER))).toBe('OUTPUT_EXISTS');
    expect(readdirSync(folder)).toEqual(['out']);
  });
});

describe('WRITE_FAILED', () => {
  it.each([
    ['a folder that is not there', 'missing/out', 'ENOENT'],
    ['a folder that is a file', 'file/out', 'ENOTDIR'],
  ])('names the path and the reason: %s', (_, out, reason) => {
    const folder = place();
    writeFileSync(join(folder, 'file'), '');
    const run = () => new AtomicOutput(join(folder, out), FOLDER);
    expect(codeOf(run)).toBe('WRITE_FAILED');
    expect(run).toThrow(join(folder, out));
    expect(run).toThrow(reason);
  });

  it('stands for a full disk, and nothing is left', () => {
    const folder = place();
    const full = Object.assign(new Error('full'), { code: 'ENOSPC' });
    const write = jest.spyOn(fs, 'writeFileSync').mockImplementation(() => {
      throw full;
    });
    try {
      const run = () =>
        writeAtomically(join(folder, 'out'), FOLDER, (partial) =>
          writeWholeFile(join(partial, 'x'), 'x'),
        );
      expect(codeOf(run)).toBe('WRITE_FAILED');
      expect(run).toThrow(/out\.partial-.*\/x: no space left on the device \(ENOSPC\)$/);
    } finally {
      write.mockRestore();
    }
    expect(readdirSync(folder)).toEqual([]);
  });

  it('comes from a real limit too', () => {
    const folder = place();
    const program = `
      const { writeAtomically } = require(${JSON.stringify(join(compiledRoot, 'lib/format/atomic-output'))});
      const { OutputFile } = require(${JSON.stringify(join(compiledRoot, 'lib/format/output-file'))});
      try {
        writeAtomically(${JSON.stringify(join(folder, 'out'))}, { kind: 'file' }, (partial) => {
          const file = new OutputFile(partial);
          try { file.writeAt(new Uint8Array(100_000), 0); } finally { file.close(); }
        });
      } catch (error) { console.log(error.code, error.received); }`;
    const { stdout } = spawnSync(
      'bash',
      ['-c', 'ulimit -f 8; exec "$0" -e "$1"', process.execPath, program],
      { encoding: 'utf8' },
    );
    expect(stdout).toBe('WRITE_FAILED the file is larger than it may be (EFBIG)\n');
    expect(readdirSync(folder)).toEqual([]);
  });
});
