/** What the machine can do from JavaScript; the caller times these. */

/** Results go here so that no compiler may drop the work. */
const sink = new Float64Array(1);

export function probeRead(buffer: Uint8Array): void {
  // Whole words, from the first aligned byte on; the few bytes around them one by one.
  const head = Math.min(buffer.length, -buffer.byteOffset & 3);
  const count = Math.floor((buffer.length - head) / 4);
  if (count > 0)
    sink[0] = readWords(new Int32Array(buffer.buffer, buffer.byteOffset + head, count));
  for (let i = 0; i < head; i++) sink[0] += buffer[i];
  for (let i = head + 4 * count; i < buffer.length; i++) sink[0] += buffer[i];
}

function readWords(words: Int32Array): number {
  const whole = words.length - (words.length % 4);
  let a = 0, b = 0, c = 0, d = 0; // prettier-ignore
  for (let i = 0; i < whole; i += 4) {
    a ^= words[i];
    b ^= words[i + 1];
    c ^= words[i + 2];
    d ^= words[i + 3];
  }
  for (let i = whole; i < words.length; i++) a ^= words[i];
  return a ^ b ^ c ^ d;
}

const CHAINS = 8;

/** Eight chains of multiply-adds, enough to hide the latency of each; returns the FLOP done. */
export function probeFma(iterations: number): number {
  const m = 0.999999;
  let a = 1, b = 2, c = 3, d = 4, e = 5, f = 6, g = 7, h = 8; // prettier-ignore
  for (let i = 0; i < iterations; i++) {
    a = a * m + m;
    b = b * m + m;
    c = c * m + m;
    d = d * m + m;
    e = e * m + m;
    f = f * m + m;
    g = g * m + m;
    h = h * m + m;
  }
  sink[0] = a + b + c + d + e + f + g + h;
  return iterations * CHAINS * 2;
}
