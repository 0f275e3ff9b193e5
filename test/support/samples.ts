/** How much a run samples: less under emulation (GQA_TEST_LEAN=1). */
const lean = process.env.GQA_TEST_LEAN === '1';

export function samples(count: number): number {
  return lean ? Math.ceil(count / 5) : count;
}

/** Values of an axis; a lean run keeps every `keep`-th and the last. */
export function axis<T>(values: readonly T[], keep = 3): T[] {
  return lean ? thinned(values, keep) : [...values];
}

/** Every `keep`-th value and the last. */
export function thinned<T>(values: readonly T[], keep: number): T[] {
  return values.filter((_, i) => i % keep === 0 || i === values.length - 1);
}
