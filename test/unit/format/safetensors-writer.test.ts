import { readdirSync, readFileSync } from 'node:fs';
import { mkdirSync } from 'node:fs';
import { GqaError } from '../../../lib/core/errors';
import { SafetensorsFile } from '../../../lib/format/safetensors';
import { SafetensorsWriter, type TensorDeclaration } from '../../../lib/format/safetensors-writer';
import { openFolderWeights } from '../../../lib/model/weights';
import { temporaryFolder } from './build-files';

const path = temporaryFolder();

let count = 0;
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

const TENSORS: TensorDeclaration[] = [
  { name: 'a', dtype: 'BF16', shape: [3], bytes: 6 },
  { name: 'b', dtype: 'F32', shape: [2, 2], bytes: 16 },
  { name: '__proto__', dtype: 'F16', shape: [1], bytes: 2 },
  { name: 'none', dtype: 'F32', shape: [0, 4], bytes: 0 },
  { name: 'c', dtype: 'F16', shape: [4], bytes: 8 },
];
const bytesOf = ({ bytes }: TensorDeclaration, seed: number) =>
  Uint8Array.from({ length: bytes }, (_, i) => (17 * i + 3 * seed) & 0x3f);

function writeAll(folder: string, shardBytes?: number): void {
  const writer = new SafetensorsWriter(folder, TENSORS, { shardBytes });
  TENSORS.map((tensor, i) => [tensor, i] as const)
    .reverse()
    .forEach(([tensor, i]) => {
      const bytes = bytesOf(tensor, i);
      writer.write(tensor.name, bytes.subarray(0, 2));
      writer.write(tensor.name, bytes.subarray(2));
    });
  writer.finish();
}

it('writes one file that the reader takes, its tensors aligned', () => {
  const folder = place();
  writeAll(folder);
  expect(readdirSync(folder)).toEqual(['model.safetensors']);
  const file = new SafetensorsFile(`${folder}/model.safetensors`);
  expect([...file.metadata]).toEqual([['format', 'pt']]);
  expect([...file.tensors.keys()]).toEqual(TENSORS.map(({ name }) => name));
  expect(file.tensors.get('a')!.offset % 8).toBe(0);
  TENSORS.forEach((tensor, i) => {
    const { data, shape } = file.read(tensor.name);
    expect(shape).toEqual(tensor.shape);
    expect(new Uint8Array(data.buffer)).toEqual(bytesOf(tensor, i));
  });
  file.close();
});

it('spreads tensors over shards as transformers does, with an index', () => {
  const folder = place();
  writeAll(folder, 10);
  const names = [1, 2, 3].map((n) => `model-0000${n}-of-00003.safetensors`);
  expect(readdirSync(folder)).toEqual([...names, 'model.safetensors.index.json']);
  const index = JSON.parse(readFileSync(`${folder}/model.safetensors.index.json`, 'utf8'));
  expect(index.metadata).toEqual({ total_size: 32 });
  expect(Object.entries(index.weight_map)).toEqual([
    ['a', names[0]],
    ['b', names[1]],
    ['__proto__', names[2]],
    ['none', names[2]],
    ['c', names[2]],
  ]);
  const weights = openFolderWeights(folder);
  expect(new Uint8Array(weights.load('c', [4]).data.buffer)).toEqual(bytesOf(TENSORS[4], 4));
  weights.close();
});

it('refuses a name twice, an unknown one, a second write and a missing one', () => {
  expect(codeOf(() => new SafetensorsWriter(place(), [TENSORS[0], TENSORS[0]]))).toBe(
    'INVALID_ARGUMENT',
  );
  const writer = new SafetensorsWriter(place(), TENSORS.slice(0, 2));
  expect(codeOf(() => writer.write('c', new Uint8Array(1)))).toBe('INVALID_ARGUMENT');
  writer.write('a', new Uint8Array(6));
  expect(codeOf(() => writer.write('a', new Uint8Array(6)))).toBe('INVALID_ARGUMENT');
  writer.write('b', new Uint8Array(15));
  expect(codeOf(() => writer.finish())).toBe('INVALID_ARGUMENT');
  writer.write('b', new Uint8Array(1));
  writer.finish();
});

it('refuses a file that is there', () => {
  const folder = place();
  writeAll(folder);
  expect(codeOf(() => new SafetensorsWriter(folder, TENSORS))).toBe('WRITE_FAILED');
});
