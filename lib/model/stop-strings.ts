/**
 * Cuts a stream of pieces { text, token } at the first stop string, which may spread over pieces: text that could be the
 * beginning of one is held back, with its tokens, until it is known not to be.
 */
export interface Piece {
  text: string;
  token: number;
}

export class StopStrings<P extends { text: string } = Piece> {
  /** The stop string that has come. */
  found: string | null = null;
  private held: P[] = [];

  constructor(private readonly stops: readonly string[]) {}

  /** Whether a stop string has come. */
  get stopped(): boolean {
    return this.found !== null;
  }

  /** Pieces that are certain now. Behind a stop string nothing is. */
  push(piece: P): P[] {
    if (this.stops.length === 0) return [piece];
    this.held.push(piece);
    const text = this.held.map((part) => part.text).join('');
    const at = this.firstStop(text);
    if (at >= 0) {
      this.found = this.stops.find((stop) => text.startsWith(stop, at)) ?? null;
      return this.cutAt(at);
    }
    return this.release(text.length - this.openLength(text));
  }

  /** What is still held, at the end of the stream. */
  flush(): P[] {
    return this.held.splice(0);
  }

  private firstStop(text: string): number {
    let first = -1;
    for (const stop of this.stops) {
      const at = text.indexOf(stop);
      if (at >= 0 && (first < 0 || at < first)) first = at;
    }
    return first;
  }

  /** Length of the longest end of text that begins a stop string. */
  private openLength(text: string): number {
    let open = 0;
    for (const stop of this.stops) {
      for (let length = Math.min(stop.length - 1, text.length); length > open; length--) {
        if (text.endsWith(stop.slice(0, length))) open = length;
      }
    }
    return open;
  }

  /** The pieces that end within the first `end` characters. */
  private release(end: number): P[] {
    let count = 0;
    for (let at = 0; count < this.held.length; count++) {
      at += this.held[count].text.length;
      if (at > end) break;
    }
    return this.held.splice(0, count);
  }

  /** The pieces that begin before `end`, the last one's text cut there. */
  private cutAt(end: number): P[] {
    const pieces: P[] = [];
    let at = 0;
    for (const piece of this.held.splice(0)) {
      if (at >= end) break;
      pieces.push({ ...piece, text: piece.text.slice(0, end - at) });
      at += piece.text.length;
    }
    return pieces;
  }
}
