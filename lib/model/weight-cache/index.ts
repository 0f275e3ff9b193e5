export { modelDigest } from './contents';
export { checkWeightCache, loadWeights } from './load';
export type { LoadedWeights, WeightCacheChoice, WeightFacts } from './load';
