/** The little complex arithmetic that RoPE pairs need. */
export type Complex = readonly [re: number, im: number];

export function polar(modulus: number, phase: number): Complex {
  return [modulus * Math.cos(phase), modulus * Math.sin(phase)];
}

export function argument([re, im]: Complex): number {
  return Math.atan2(im, re);
}

export function conjugate([re, im]: Complex): Complex {
  return [re, -im];
}

export function multiply([a, b]: Complex, [c, d]: Complex): Complex {
  return [a * c - b * d, a * d + b * c];
}

export function scaled([re, im]: Complex, factor: number): Complex {
  return [re * factor, im * factor];
}
