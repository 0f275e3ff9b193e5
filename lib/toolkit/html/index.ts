/** Pages with tables and charts that need no network and no scripts. */
export { barChart } from './bar-chart';
export type { Bar, BarChart } from './bar-chart';
export { heatmap } from './heatmap';
export type { Heatmap, HeatmapSide } from './heatmap';
export { lineChart } from './line-chart';
export type { LineChart, Series } from './line-chart';
export { Markup, markup } from './markup';
export type { Content } from './markup';
export { page } from './page';
export type { PageOptions, Section } from './page';
export type { Axis } from './scale';
export { table } from './table';
