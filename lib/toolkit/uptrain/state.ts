/**
 * What an interrupted run needs to go on as if nothing had happened: trained weights and their moments, how far it came,
 * and what it was asked to do, in a folder beside the output, `NAME.training`.
 */
import { createHash } from 'node:crypto';
import { existsSync, rmSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { expectedError, GqaError } from '../../core/errors';
import { AtomicOutput, writeAtomically } from '../../format/atomic-output';
import { invalidFile, readJsonFile } from '../../format/file';
import { writeWholeFile } from '../../format/output-file';
import { SafetensorsFile } from '../../format/safetensors';
import { SafetensorsWriter } from '../../format/safetensors-writer';
import { isObject, JsonFields, type JsonObject } from '../../model/json-fields';
import { trainedOf, type Parameters } from './parameters';
import type { StepLoss } from './trainer';

const VERSION = 1;
/** One file, whatever its size. */
const TENSOR_FILE = 'model.safetensors';
const PROGRESS_FILE = 'gqa_training.json';
const MAX_PROGRESS_BYTES = 2 ** 28;

/** A held-back text's cross-entropy after so many steps. */
export interface Evaluation {
  step: number;
  crossEntropy: number;
}

/** How far a run has come. */
export interface Progress {
  step: number;
  losses: StepLoss[];
  evaluations: Evaluation[];
  /** Of training, over all its parts. */
  seconds: number;
}

/** What decides the result, by names for people: settings, and hashes of models and texts. */
export type Fingerprint = Readonly<Record<string, string | number>>;

export function statePath(out: string): string {
  const path = resolve(out);
  return join(dirname(path), `${basename(path)}.training`);
}

const FORM = { kind: 'folder', overwrite: true, mark: PROGRESS_FILE } as const;

/** @throws GqaError OUTPUT_EXISTS where something else lies there, WRITE_FAILED */
export function hasState(out: string): boolean {
  // Puts a state back that a run had just set aside when it was killed.
  new AtomicOutput(statePath(out), FORM).abort();
  return existsSync(statePath(out));
}

export function removeState(out: string): void {
  rmSync(statePath(out), { recursive: true, force: true });
}

const TENSORS = {
  weight: 'weight',
  m: 'first moment',
  v: 'second moment',
} as const;

type Kind = keyof typeof TENSORS;

/** The arrays of a state by name, in one order. */
function tensorsOf(
  parameters: Parameters,
): { name: string; shape: readonly number[]; data: Float32Array }[] {
  return trainedOf(parameters).flatMap(({ name, shape, weight, training: { m, v } }) =>
    Object.entries({ weight, m, v }).map(([kind, data]) => ({
      name: `${TENSORS[kind as Kind]} of ${name}`,
      shape,
      data,
    })),
  );
}

/** Replaces the state that is there, at once. @throws GqaError WRITE_FAILED */
export function saveState(
  out: string,
  fingerprint: Fingerprint,
  progress: Progress,
  parameters: Parameters,
): void {
  writeAtomically(statePath(out), FORM, (folder) => {
    const tensors = tensorsOf(parameters);
    const writer = new SafetensorsWriter(
      folder,
      tensors.map(({ name, shape, data }) => {
        return { name, shape, dtype: 'F32', bytes: data.byteLength };
      }),
      { shardBytes: Infinity },
    );
    try {
      for (const { name, data } of tensors) {
        writer.write(name, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
      }
      writer.finish();
    } finally {
      writer.closeFiles();
    }
    const json = { version: VERSION, fingerprint, ...progress };
    writeWholeFile(join(folder, PROGRESS_FILE), `${JSON.stringify(json)}\n`);
  });
}

/**
 * Takes weights and moments from the state.
 * @throws GqaError RESUME_MISMATCH naming what is other than it was, INVALID_FILE
 */
export function loadState(out: string, fingerprint: Fingerprint, parameters: Parameters): Progress {
  const folder = statePath(out);
  const path = join(folder, PROGRESS_FILE);
  const json = new JsonFields(path, readJsonFile(path, MAX_PROGRESS_BYTES));
  checkFingerprint(path, json, fingerprint);
  const file = new SafetensorsFile(join(folder, TENSOR_FILE));
  try {
    for (const { name, data } of tensorsOf(parameters)) {
      const saved = file.read(name);
      if (saved.dtype !== 'f32' || saved.data.length !== data.length) {
        throw invalidFile(file.path, `${data.length} elements of ${name}`, 'others');
      }
      data.set(saved.data);
    }
  } finally {
    file.close();
  }
  return readProgress(path, json);
}

function checkFingerprint(path: string, json: JsonFields, fingerprint: Fingerprint): void {
  const version = json.raw('version');
  if (version !== VERSION) throw invalidFile(path, `version ${VERSION}`, String(version));
  const saved = json.object('fingerprint');
  for (const [name, value] of Object.entries(fingerprint)) {
    const before = saved.raw(name);
    if (before === value) continue;
    const [expected, received] = [String(before), String(value)];
    const message = `The run in ${path} was begun with ${name} ${expected}, not ${received}`;
    throw new GqaError('RESUME_MISMATCH', message, { argument: name, expected, received });
  }
}

function readProgress(path: string, json: JsonFields): Progress {
  const step = json.integer('step', undefined, 0);
  const objectsOf = (name: string): JsonObject[] => {
    const list: unknown = json.raw(name);
    if (!Array.isArray(list) || !list.every(isObject)) throw json.wrong(name, 'a list', list);
    return list;
  };
  const losses = objectsOf('losses') as unknown as StepLoss[];
  const evaluations = objectsOf('evaluations') as unknown as Evaluation[];
  if (losses.length !== step) {
    throw invalidFile(path, `the losses of ${step} steps`, String(losses.length));
  }
  return { step, losses, evaluations, seconds: Number(json.raw('seconds')) };
}

/** @throws GqaError OUTPUT_EXISTS where a run lies there that is neither to be resumed nor replaced */
export function checkNoState(out: string): void {
  if (!hasState(out)) return;
  const path = statePath(out);
  throw expectedError(
    'OUTPUT_EXISTS',
    path,
    'leave to resume or to overwrite',
    'an interrupted run',
  );
}

/** SHA-256, short enough to be read. */
export function hashOf(...parts: readonly (string | Uint8Array)[]): string {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest('hex').slice(0, 32);
}

/** Of all weights, as they were read. */
export function hashOfParameters(parameters: Parameters): string {
  const bytes = [...parameters.values()].map(
    ({ weight }) => new Uint8Array(weight.buffer, weight.byteOffset, weight.byteLength),
  );
  return hashOf(...[...parameters.keys()], ...bytes);
}
