import fc from 'fast-check';
import { StopStrings, type Piece } from '../../../lib/model/stop-strings';

function run(stops: string[], texts: string[]): { pieces: Piece[]; stopped: boolean } {
  const cutter = new StopStrings(stops);
  const pieces: Piece[] = [];
  for (const [token, text] of texts.entries()) {
    pieces.push(...cutter.push({ text, token }));
    if (cutter.stopped) return { pieces, stopped: true };
  }
  return { pieces: [...pieces, ...cutter.flush()], stopped: false };
}

describe('StopStrings', () => {
  it('cuts at a stop string within a piece and keeps what stands before', () => {
    expect(run(['ab'], ['x', 'yabz', 'w'])).toEqual({
      pieces: [
        { text: 'x', token: 0 },
        { text: 'y', token: 1 },
      ],
      stopped: true,
    });
  });

  it('finds a stop string over several pieces; their tokens do not appear', () => {
    expect(run(['\n\n##'], ['one', '\n', '\n', '#', '#more'])).toEqual({
      pieces: [{ text: 'one', token: 0 }],
      stopped: true,
    });
  });

  it('gives held text back where it was no stop string after all', () => {
    expect(run(['abc'], ['ab', 'd', 'ab'])).toEqual({
      pieces: [
        { text: 'ab', token: 0 },
        { text: 'd', token: 1 },
        { text: 'ab', token: 2 },
      ],
      stopped: false,
    });
  });

  it('holds nothing back that cannot become a stop string', () => {
    const cutter = new StopStrings(['xyz']);
    expect(cutter.push({ text: 'abc', token: 0 })).toHaveLength(1);
    expect(cutter.push({ text: 'abx', token: 1 })).toHaveLength(0);
    expect(cutter.push({ text: 'y', token: 2 })).toHaveLength(0);
    expect(cutter.push({ text: 'q', token: 3 })).toHaveLength(3);
  });

  it('takes the first of several, overlapping ones included', () => {
    expect(run(['bcd', 'ab'], ['x', 'a', 'b', 'c', 'd']).pieces).toEqual([{ text: 'x', token: 0 }]);
  });

  it('yields exactly the text before the first stop string, however it is cut into pieces', () => {
    const letters = fc.string({ unit: fc.constantFrom('a', 'b'), maxLength: 4 });
    fc.assert(
      fc.property(
        fc.array(letters, { maxLength: 12 }),
        fc.array(fc.string({ unit: fc.constantFrom('a', 'b'), minLength: 1, maxLength: 4 }), {
          minLength: 1,
          maxLength: 3,
        }),
        (texts, stops) => {
          const whole = texts.join('');
          const { pieces, stopped } = run(stops, texts);
          const text = pieces.map((piece) => piece.text).join('');
          expect(pieces.map((piece) => piece.token)).toEqual(pieces.map((_, i) => i));
          expect(stops.some((stop) => text.includes(stop))).toBe(false);
          expect(whole.startsWith(text)).toBe(true);
          expect(stopped).toBe(stops.some((stop) => whole.includes(stop)));
          if (stopped) {
            // It ends right where a stop string begins.
            expect(stops.some((stop) => whole.startsWith(stop, text.length))).toBe(true);
          } else {
            expect(text).toBe(whole);
          }
        },
      ),
    );
  });
});
