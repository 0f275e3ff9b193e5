/** Colours that people who see few of them can still tell apart, and that print in grey. */

/** Of series, on white and on black: after Okabe and Ito, darkened or lightened to stand out from the paper. */
export const SERIES_COLOURS: readonly { light: string; dark: string }[] = [
  { light: '#0072b2', dark: '#56a8e0' },
  { light: '#d55e00', dark: '#f0853a' },
  { light: '#00815e', dark: '#2fc39a' },
  { light: '#b34e8b', dark: '#e08fc0' },
  { light: '#8a6d00', dark: '#d9b52c' },
  { light: '#5b5b9e', dark: '#9d9de8' },
  { light: '#4f6b75', dark: '#9ab8c4' },
];

/** Dashes tell lines apart without colour. */
export const SERIES_DASHES = ['', '7 3', '2 3', '9 3 2 3', '4 2', '12 4', '1 2'];

type Rgb = readonly [number, number, number];

/** Viridis at nine even steps (matplotlib, CC0): brightness rises evenly from end to end. */
const SEQUENTIAL: readonly Rgb[] = [
  [68, 1, 84],
  [71, 44, 122],
  [59, 81, 139],
  [44, 113, 142],
  [33, 144, 141],
  [39, 173, 129],
  [92, 200, 99],
  [170, 220, 50],
  [253, 231, 37],
];

/** Around a middle: blue below, orange above. */
const DIVERGING: readonly Rgb[] = [
  [5, 68, 122],
  [67, 133, 184],
  [166, 202, 226],
  [245, 245, 245],
  [246, 197, 155],
  [221, 125, 54],
  [140, 60, 5],
];

export interface Shade {
  fill: string;
  /** Black or white, whichever is read better on it. */
  ink: string;
}

/** The colour of a share 0..1 of the range. */
export function shade(share: number, diverging: boolean): Shade {
  const anchors = diverging ? DIVERGING : SEQUENTIAL;
  const at = Math.min(1, Math.max(0, share)) * (anchors.length - 1);
  const index = Math.min(anchors.length - 2, Math.floor(at));
  const rgb = anchors[index].map((low, c) =>
    Math.round(low + (at - index) * (anchors[index + 1][c] - low)),
  );
  const hex = rgb.map((value) => value.toString(16).padStart(2, '0')).join('');
  const brightness = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2];
  return { fill: `#${hex}`, ink: brightness > 130 ? '#000' : '#fff' };
}
