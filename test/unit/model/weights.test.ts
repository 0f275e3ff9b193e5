import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { GqaError } from '../../../lib/core/errors';
import { ggufName } from '../../../lib/model/gguf/names';
import { halfSplit } from '../../../lib/model/gguf/rows';
import { openFolderWeights } from '../../../lib/model/weights';
import { floats, safetensorsBytes, temporaryFolder, write } from '../format/build-files';

const path = temporaryFolder();

function shard(folder: string, name: string, tensors: Record<string, number[]>): void {
  const header: Record<string, object> = {};
  let end = 0;
  for (const [key, values] of Object.entries(tensors)) {
    const begin = end;
    end += 4 * values.length;
    header[key] = { dtype: 'F32', shape: [values.length], data_offsets: [begin, end] };
  }
  write(join(folder, name), safetensorsBytes(header, floats(Object.values(tensors).flat())));
}

function folder(name: string, weightMap?: Record<string, unknown>): string {
  const at = path(name);
  mkdirSync(at);
  if (weightMap !== undefined) {
    const json = JSON.stringify({ metadata: {}, weight_map: weightMap });
    write(join(at, 'model.safetensors.index.json'), Buffer.from(json));
  }
  return at;
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

describe('weights of a folder', () => {
  it('come from a single file', () => {
    const at = folder('single');
    shard(at, 'model.safetensors', { a: [1, 2], b: [3] });
    const weights = openFolderWeights(at);
    expect([weights.has('a'), weights.has('c')]).toEqual([true, false]);
    expect([...weights.load('a', [2]).data]).toEqual([1, 2]);
    expect(codeOf(() => weights.load('a', [1]))).toBe('INVALID_FILE');
    expect(codeOf(() => weights.load('a', [2, 1]))).toBe('INVALID_FILE');
    expect(codeOf(() => weights.load('c', [1]))).toBe('INVALID_FILE');
    weights.close();
  });

  it('come from shards by the index', () => {
    const at = folder('sharded', { a: 'x.safetensors', b: 'y.safetensors' });
    shard(at, 'x.safetensors', { a: [1] });
    shard(at, 'y.safetensors', { b: [2] });
    const weights = openFolderWeights(at);
    expect([...weights.load('b', [1]).data, ...weights.load('a', [1]).data]).toEqual([2, 1]);
    weights.close();
  });

  it.each<[string, Record<string, unknown> | undefined]>([
    ['nothing', undefined],
    ['a shard outside the folder', { a: '../x.safetensors' }],
    ['a shard by absolute path', { a: '/etc/passwd' }],
    ['a shard that is not there', { a: 'none.safetensors' }],
    ['a shard without the tensor', { b: 'x.safetensors' }],
    ['a shard that is no name', { a: 7 }],
  ])('refuses %s', (what, weightMap) => {
    const at = folder(what.replaceAll(' ', '-'), weightMap);
    shard(at, 'x.safetensors', { a: [1] });
    expect(codeOf(() => openFolderWeights(at))).toBe('INVALID_FILE');
  });
});

describe('weights of GGUF', () => {
  it.each([
    ['model.embed_tokens.weight', 'token_embd.weight'],
    ['model.norm.weight', 'output_norm.weight'],
    ['lm_head.weight', 'output.weight'],
    ['model.layers.0.input_layernorm.weight', 'blk.0.attn_norm.weight'],
    ['model.layers.12.self_attn.q_proj.bias', 'blk.12.attn_q.bias'],
    ['model.layers.3.self_attn.o_proj.weight', 'blk.3.attn_output.weight'],
    ['model.layers.3.post_attention_layernorm.weight', 'blk.3.ffn_norm.weight'],
    ['model.layers.3.mlp.down_proj.weight', 'blk.3.ffn_down.weight'],
    ['something.else', 'something.else'],
  ])('%s is %s', (name, stored) => {
    expect(ggufName(name)).toBe(stored);
  });

  it('have the rows of Q and K put back: (h, r, s) to (h, s, r)', () => {
    const [heads, headDim, columns] = [2, 6, 2];
    const rows = heads * headDim;
    const at = (h: number, s: number, r: number) => 100 * h + 10 * s + r;
    const stored = new Float32Array(rows * columns);
    for (let h = 0, i = 0; h < heads; h++) {
      for (let r = 0; r < headDim / 2; r++) {
        for (let s = 0; s < 2; s++)
          for (let c = 0; c < columns; c++) stored[i++] = at(h, s, r) + c / 2;
      }
    }
    const { data } = halfSplit({ shape: [rows, columns], dtype: 'f32', data: stored }, heads);
    const expected: number[] = [];
    for (let h = 0; h < heads; h++) {
      for (let s = 0; s < 2; s++) {
        for (let r = 0; r < headDim / 2; r++) {
          for (let c = 0; c < columns; c++) expected.push(at(h, s, r) + c / 2);
        }
      }
    }
    expect([...data]).toEqual(expected);
  });

  it('move rows of blocks whole', () => {
    const row = (n: number) => new Array<number>(34).fill(n);
    const data = Uint8Array.from([0, 1, 2, 3].flatMap(row));
    const moved = halfSplit({ shape: [4, 32], dtype: 'q8_0', data }, 1);
    expect(Array.from(moved.data)).toEqual([0, 2, 1, 3].flatMap(row));
  });

  it('keep 16-bit rows as they are, biases too', () => {
    const data = new Uint16Array([0, 1, 2, 3]);
    expect([...halfSplit({ shape: [4], dtype: 'f16', data }, 1).data]).toEqual([0, 2, 1, 3]);
  });
});
