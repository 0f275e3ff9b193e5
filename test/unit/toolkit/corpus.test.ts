import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { missingTokenizer, type Tokenizer } from '../../../lib/model/tokenizer';
import { encodeCorpus, readCorpus } from '../../../lib/toolkit/corpus';
import { expectRefused } from '../../support/refusals';

/** Characters as their codes; 1 begins and 2 ends a document. */
const tokenizer: Tokenizer = {
  ...missingTokenizer('none'),
  available: true,
  encode: (text) => Array.from(text, (char) => char.charCodeAt(0)),
  bosTokenId: 1,
  eosTokenId: 2,
};
const A = 97;

const windowsOf = (text: string, window: number, maxTokens?: number) => {
  const corpus = encodeCorpus(text, tokenizer, { window, maxTokens });
  return { ...corpus, windows: corpus.windows.map((ids) => Array.from(ids)) };
};

test('documents stand between BOS and EOS, joined, in windows without overlap', () => {
  const { windows, documents, tokens } = windowsOf('aa\n<|end|>\n\naa\n<|end|>\n<|end|>\n', 3);
  expect(documents).toBe(2);
  expect(windows).toEqual([
    [1, A, A],
    [2, 1, A],
    [A, 2],
  ]);
  expect(tokens).toBe(8);
});

test('an end within a line is text', () => {
  expect(windowsOf('a<|end|>', 100)).toMatchObject({ documents: 1, tokens: 10 });
});

test('a text without an end is one document, Windows lines or not', () => {
  expect(windowsOf('aaa', 10).windows).toEqual([[1, A, A, A, 2]]);
  expect(windowsOf('a\r\n<|end|>\r\na\r\n', 10)).toMatchObject({
    documents: 2,
    windows: [[1, A, 2, 1, A, 2]],
  });
});

test('a window of one token is left out: it predicts nothing', () => {
  expect(windowsOf('aaa', 4).windows).toEqual([[1, A, A, A]]);
});

test('what goes beyond maxTokens is cut after a whole window, and counted', () => {
  expect(windowsOf('aaaaaaaa', 4, 9)).toMatchObject({ tokens: 8, cut: 2 });
  expect(windowsOf('aaaaaaaa', 4, 1)).toMatchObject({ tokens: 4, cut: 6 });
});

test('a model without BOS or EOS gets none', () => {
  const bare = { ...tokenizer, bosTokenId: null, eosTokenId: null };
  expect(Array.from(encodeCorpus('aa', bare, { window: 4 }).windows[0])).toEqual([A, A]);
});

describe('what is no text', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'gqa-corpus-'));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  test.each([
    ['an empty file', Buffer.from('')],
    ['white space', Buffer.from(' \n\t\n')],
    ['bytes that are no UTF-8', Buffer.from([0xff, 0xfe, 0x41])],
    ['zeros', Buffer.from('a\0b')],
  ])('%s', async (_, bytes) => {
    const path = join(folder, 'text');
    writeFileSync(path, bytes);
    await expectRefused('INVALID_TEXT', path, () => readCorpus(path, tokenizer, { window: 4 }));
  });

  test('a folder, and a file that is not there', async () => {
    for (const path of [folder, join(folder, 'none')]) {
      await expectRefused('INVALID_TEXT', path, () => readCorpus(path, tokenizer, { window: 4 }));
    }
  });

  test('text of one token', async () => {
    const bare = { ...tokenizer, bosTokenId: null, eosTokenId: null };
    await expectRefused('INVALID_TEXT', 'text', () => encodeCorpus('a', bare, { window: 4 }));
  });
});
