/** The engine: many requests at once over one model. */
export { Engine } from './engine';
export type {
  EngineModel,
  EngineOptions,
  EnginePiece,
  EngineRequest,
  EngineResult,
  EngineRun,
  EngineStats,
  GeneratedToken,
  PrefixStoreOptions,
  RequestSampling,
  SpeculationOptions,
  TokenAlternative,
} from './types';
