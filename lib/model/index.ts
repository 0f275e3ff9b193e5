/** The runner: loads a model, generates text, scores it. */
export type { KvCacheSettings } from './cache-settings';
export type { CacheScore } from './compare-caches';
export { loadModel, type LoadOptions } from './load';
export type { CallOptions, Model, Prompt } from './model';
export type { ChatMessage } from './chat-template';
export type { GenerateOptions } from './generate-options';
export type { Generation, GenerationStats, Piece } from './generation';
export type { Score } from './runner';
export type { DecodeOptions, EncodeOptions, Tokenizer } from './tokenizer';
export type { ModelConfig, RopeScaling } from './types';
export type { WeightFacts } from './weight-cache';
