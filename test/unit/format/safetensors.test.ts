import fc from 'fast-check';
import { appendFileSync, closeSync, ftruncateSync, mkdirSync, openSync } from 'node:fs';
import { GqaError } from '../../../lib/core/errors';
import { SafetensorsFile } from '../../../lib/format/safetensors';
import { floats, safetensorsBytes, temporaryFolder, write } from './build-files';

const path = temporaryFolder();

const VALUES = [1, -2, 3.5, 0, 5, 6];
const GOOD_HEADER = {
  __metadata__: { format: 'pt' },
  a: { dtype: 'F32', shape: [2, 3], data_offsets: [0, 24] },
  b: { dtype: 'BF16', shape: [2], data_offsets: [24, 28] },
  empty: { dtype: 'F32', shape: [0, 7], data_offsets: [28, 28] },
  scalar: { dtype: 'I64', shape: [], data_offsets: [28, 36] },
};
const GOOD_DATA = Buffer.concat([
  floats(VALUES),
  Buffer.from([0x80, 0x3f, 0, 0xc0]),
  Buffer.alloc(8),
]);

function open(header: unknown, data: Buffer, length?: number | bigint): SafetensorsFile {
  return new SafetensorsFile(write(path('x.safetensors'), safetensorsBytes(header, data, length)));
}

function errorOf(run: () => unknown): GqaError {
  try {
    run();
  } catch (error) {
    expect(error).toBeInstanceOf(GqaError);
    return error as GqaError;
  }
  throw new Error('nothing was thrown');
}

describe('SafetensorsFile', () => {
  it('reads tensors as they are stored', () => {
    const file = open(GOOD_HEADER, GOOD_DATA);
    expect([...file.tensors.keys()]).toEqual(['a', 'b', 'empty', 'scalar']);
    expect([...file.metadata]).toEqual([['format', 'pt']]);
    expect(file.read('a')).toEqual({
      shape: [2, 3],
      dtype: 'f32',
      data: new Float32Array(VALUES),
    });
    expect(file.read('b')).toEqual({
      shape: [2],
      dtype: 'bf16',
      data: new Uint16Array([0x3f80, 0xc000]),
    });
    expect(file.read('empty').data.length).toBe(0);
    expect(errorOf(() => file.read('scalar')).code).toBe('UNSUPPORTED_MODEL');
    expect(errorOf(() => file.read('c')).code).toBe('INVALID_FILE');
    file.close();
    file.close();
  });

  const tensor = (change: object) => ({
    a: { dtype: 'F32', shape: [2], data_offsets: [0, 8], ...change },
  });
  const twice = (from: number) => ({
    a: { dtype: 'F32', shape: [2], data_offsets: [0, 8] },
    b: { dtype: 'F32', shape: [2], data_offsets: [from, from + 8] },
  });
  const bytes = (n: number) => Buffer.alloc(n);

  const BAD: [string, unknown, Buffer, (number | bigint)?][] = [
    ['a header longer than the file', {}, bytes(0), 1000],
    ['a header of 2^63 bytes', {}, bytes(0), 2n ** 63n],
    ['a header of 2^64 - 1 bytes', {}, bytes(0), 2n ** 64n - 1n],
    ['an empty header', '', bytes(0)],
    ['garbage', '{"a":', bytes(0)],
    ['an array as header', '[]', bytes(0)],
    ['null as header', 'null', bytes(0)],
    ['a number for a tensor', '{"a":1}', bytes(0)],
    ['null for a tensor', '{"a":null}', bytes(0)],
    ['a header that is no UTF-8', '\u{1f600}', bytes(0), 3],
    ['a tensor beyond the file', tensor({}), bytes(4)],
    ['bytes no tensor owns', tensor({}), bytes(12)],
    ['a gap between tensors', twice(12), bytes(20)],
    ['tensors that overlap', twice(4), bytes(12)],
    ['the same bytes twice', twice(0), bytes(8)],
    ['a size that does not fit the dtype', tensor({ dtype: 'F16' }), bytes(8)],
    ['an unknown dtype', tensor({ dtype: 'F31' }), bytes(8)],
    ['a dtype that is no text', tensor({ dtype: 7 }), bytes(8)],
    ['a dtype named like an object method', tensor({ dtype: 'constructor' }), bytes(8)],
    ['no shape', tensor({ shape: undefined }), bytes(8)],
    ['a negative size', tensor({ shape: [-2] }), bytes(8)],
    ['a fractional size', tensor({ shape: [0.5, 4] }), bytes(8)],
    ['a size that is text', tensor({ shape: ['2'] }), bytes(8)],
    ['NaN (null) as size', tensor({ shape: [NaN] }), bytes(8)],
    ['Infinity as size', '{"a":{"dtype":"F32","shape":[1e999],"data_offsets":[0,8]}}', bytes(8)],
    ['2^106 elements', tensor({ shape: [2 ** 53 - 1, 2 ** 53 - 1] }), bytes(8)],
    ['sizes whose product wraps in 64 bits', tensor({ shape: [2 ** 33, 2 ** 33] }), bytes(8)],
    ['offsets that descend', tensor({ data_offsets: [8, 0] }), bytes(8)],
    ['one offset', tensor({ data_offsets: [8] }), bytes(8)],
    ['three offsets', tensor({ data_offsets: [0, 8, 8] }), bytes(8)],
    ['a negative offset', tensor({ data_offsets: [-8, 0] }), bytes(8)],
    ['an offset near 2^53', tensor({ data_offsets: [2 ** 53 - 9, 2 ** 53 - 1] }), bytes(8)],
    ['metadata that is no text', { __metadata__: { a: 1 } }, bytes(0)],
    [
      'a name twice',
      `{${['a', 'a'].map((a) => `"${a}":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}`).join()}}`,
      bytes(8),
    ],
    ['deep nesting', `{"a":${'['.repeat(200_000)}`, bytes(0)],
  ];

  it.each(BAD.map(([what, header, data, length]) => ({ what, header, data, length })))(
    'refuses $what',
    ({ header, data, length }) => {
      expect(errorOf(() => open(header, data, length)).code).toBe('INVALID_FILE');
    },
  );

  it('refuses what is no file', () => {
    mkdirSync(path('folder'));
    expect(errorOf(() => new SafetensorsFile(path('folder'))).code).toBe('INVALID_FILE');
    expect(errorOf(() => new SafetensorsFile(path('nothing'))).code).toBe('INVALID_FILE');
    write(path('seven'), Buffer.alloc(7));
    expect(errorOf(() => new SafetensorsFile(path('seven'))).code).toBe('INVALID_FILE');
  });

  it('notices a file cut short after it was opened', () => {
    const file = open(GOOD_HEADER, GOOD_DATA);
    const fd = openSync(file.path, 'r+');
    ftruncateSync(fd, 200);
    closeSync(fd);
    expect(errorOf(() => file.read('a')).code).toBe('INVALID_FILE');
    file.close();
  });

  it('reads tensors beyond 4 GiB of a sparse file', () => {
    const far = 5 * 2 ** 30;
    const header = {
      far: { dtype: 'U8', shape: [far], data_offsets: [0, far] },
      a: { dtype: 'F32', shape: [2], data_offsets: [far, far + 8] },
    };
    const head = safetensorsBytes(header, Buffer.alloc(0));
    write(path('sparse'), head);
    const fd = openSync(path('sparse'), 'r+');
    ftruncateSync(fd, head.length + far);
    closeSync(fd);
    appendFileSync(path('sparse'), floats([7, 8]));
    const file = new SafetensorsFile(path('sparse'));
    expect([...file.read('a').data]).toEqual([7, 8]);
    file.close();
  });

  it('never throws anything but GqaError, whatever bytes change or are missing', () => {
    const good = safetensorsBytes(GOOD_HEADER, GOOD_DATA);
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { maxLength: 4 }),
        fc.oneof(fc.constant(good.length), fc.nat(good.length)),
        (changes, length) => {
          const bytes = Buffer.from(good.subarray(0, length));
          for (const [at, value] of changes) if (at < length) bytes[at] = value;
          try {
            const file = new SafetensorsFile(write(path('fuzz'), bytes));
            for (const name of file.tensors.keys()) file.read(name);
            file.close();
          } catch (error) {
            if (!(error instanceof GqaError)) throw error;
          }
        },
      ),
      { numRuns: 1000 },
    );
  });
});
