/** Long texts become token ids in a thread of their own, as they would here. */
import { Encoder } from '../../lib/engine/encoder';
import { openCheckpoint } from '../../lib/model/checkpoint';
import type { Tokenizer } from '../../lib/model/tokenizer';
import { embeddedModel } from '../support/package';
import { rejectionOf } from '../unit/refusals';

let tokenizer: Tokenizer;
let encoder: Encoder;
beforeEach(() => {
  const checkpoint = openCheckpoint(embeddedModel);
  tokenizer = checkpoint.tokenizer();
  checkpoint.weights.close();
  encoder = new Encoder(embeddedModel, tokenizer);
});
afterEach(() => encoder.dispose());

const LONG = 'The little boat sailed over the sea, and the wind was kind. '.repeat(40);

it('gives what the tokenizer gives, and leaves long texts to the thread', async () => {
  const expected = [LONG, LONG.slice(7, 1900)].map((text) => tokenizer.encode(text));
  const plain = tokenizer.encode(LONG, { bos: false });
  const here = jest.spyOn(tokenizer, 'encode');
  const got = await Promise.all([
    encoder.encode(LONG),
    encoder.encode(LONG.slice(7, 1900)),
    encoder.encode(LONG, { bos: false }),
  ]);
  expect(got).toEqual([...expected, plain]);
  expect(here).not.toHaveBeenCalled();
  await encoder.encode('One day');
  expect(here).toHaveBeenCalledTimes(1);
});

it('refuses what the tokenizer refuses', async () => {
  expect(await rejectionOf(encoder.encode(7 as unknown as string))).toBe('INVALID_ARGUMENT text');
});

it('goes on with a new thread where one ended', async () => {
  await encoder.encode(LONG);
  const { thread } = encoder as unknown as { thread: { terminate(): Promise<number> } };
  const cut = encoder.encode(LONG.repeat(50));
  void thread.terminate();
  await expect(cut).rejects.toMatchObject({ code: 'INTERNAL' });
  expect(await encoder.encode(LONG)).toEqual(tokenizer.encode(LONG));
});

it('ends what waits when it is disposed', async () => {
  const waiting = encoder.encode(LONG);
  await Promise.all([
    expect(waiting).rejects.toMatchObject({ code: 'DISPOSED' }),
    encoder.dispose(),
  ]);
  await expect(encoder.encode('One day')).rejects.toMatchObject({ code: 'DISPOSED' });
});
