/** What makes one checkpoint another: the contents of its files. */
import { createHash } from 'node:crypto';
import { basename } from 'node:path';
import type { Checkpoint } from '../checkpoint';
import { fileHash } from './file-hash';
import { defaultFolder } from './folder';

export function checkpointPaths({ stored }: Checkpoint): string[] {
  if (stored.form === 'gguf') return [stored.file.path];
  return [...new Set([...stored.files.values()].map((file) => file.path))];
}

/** Hashes of all files, remembered in `folder`; of a folder also its config, and which tensor lies in which file. */
export function contentsOf(
  checkpoint: Checkpoint,
  folder: string,
): { form: unknown; contents: unknown } {
  const { stored } = checkpoint;
  const files = checkpointPaths(checkpoint).map((path) => [basename(path), fileHash(path, folder)]);
  // A renamed GGUF file is the same model.
  if (stored.form === 'gguf') return { form: 'gguf', contents: files.map(([, hash]) => hash) };
  const tensors = [...stored.files].map(([name, file]) => [name, basename(file.path)]);
  return { form: [stored.json, tensors], contents: files };
}

/** SHA-256 of the model, in hexadecimal digits: the same for copies of it. @throws as node:fs */
export function modelDigest(checkpoint: Checkpoint, folder = defaultFolder()): string {
  const contents = JSON.stringify(contentsOf(checkpoint, folder));
  return createHash('sha256').update(contents).digest('hex');
}
