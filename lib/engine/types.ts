/** What an engine takes and gives: requests, their answers token by token, figures. */
import type { BackendInfo } from '../backend/contract';
import type { KvCacheSettings } from '../model/cache-settings';
import type { EncodeOptions, Tokenizer } from '../model/tokenizer';
import type { ModelConfig } from '../model/types';
import type { WeightFacts } from '../model/weight-cache';

/** Drafts by looking back in the text itself, by a smaller model, or both. */
export interface SpeculationOptions {
  /**
   * Drafts are what followed the last tokens where they stood before, after the longest such run: `ngram` tokens at most,
   * default 4, and no fewer than 2. `draft` tokens at most, default 10.
   */
  lookup?: true | { ngram?: number; draft?: number };
  /** Folder or file of a model with the same tokenizer, which drafts. */
  draftModel?: string;
  /** Tokens that the draft model drafts at a time, at most; default 4. */
  draftTokens?: number;
}

/** Shared prefixes through Redis or Valkey. */
export interface PrefixStoreOptions {
  /** redis://host:port/database, or unix:///path/of/socket. */
  url: string;
  ttlSeconds?: number;
  /** What takes longer counts as a miss. */
  timeoutMs?: number;
}

export interface EngineOptions {
  precision?: 'exact' | 'fast';
  kvCache?: KvCacheSettings;
  /** Tokens of prompt and answer together, at most; the model's own by default. */
  contextLength?: number;
  /** What clients call the model; the file's or folder's name by default. */
  name?: string;
  /** Sequences that run at once, default 16. */
  maxSequences?: number;
  /** Token slots of all sequences and shared prefixes together. */
  budgetTokens?: number;
  /** Tokens of a step, default 256. */
  stepTokens?: number;
  /** Requests that wait, default 256. */
  maxQueue?: number;
  speculation?: false | SpeculationOptions;
  store?: PrefixStoreOptions;
  /** Folder for packed weights; false packs in memory. */
  weightCache?: string | false;
}

export interface EngineModel {
  readonly id: string;
  readonly config: ModelConfig;
  /** Tokens of prompt and answer together, at most. */
  readonly contextLength: number;
  readonly backend: BackendInfo;
  /** Memory of the weights. */
  readonly bytes: number;
  /** Where they lie, and why. */
  readonly weights: WeightFacts;
  /** Milliseconds since 1970: when the engine loaded it. */
  readonly createdAt: number;
}

export interface RequestSampling {
  /** 0: always the most likely token. */
  temperature: number;
  /** 0 for all. */
  topK: number;
  /** 1 for all. */
  topP: number;
  /** 0 for all. */
  minP: number;
  /** 1 for none. */
  repetitionPenalty: number;
  /** Taken off a token's logit for each time it stands in the answer; 0 for none. */
  frequencyPenalty: number;
  /** Taken off the logit of each token that stands in the answer; 0 for none. */
  presencePenalty: number;
  /** Added to the logits of token ids. */
  logitBias?: Readonly<Record<number, number>>;
  /** An integer. The same seed gives the same text, whatever else runs. */
  seed: number;
}

export interface EngineRequest {
  /** Token ids; at least one. */
  prompt: readonly number[];
  /** At most; what the context leaves where that is less. Default 256, Infinity for as many as there is room for. */
  maxTokens?: number;
  /** Default: greedy, without penalties; a new seed each time. */
  sampling?: Partial<RequestSampling>;
  /** The answer ends before the first of these texts; a special token's text counts as that token. */
  stop?: readonly string[];
  /** How many of the most likely tokens come with each, 20 at most; 0: the chosen one's alone; -1, the default: none. */
  logprobs?: number;
  /** Larger goes first; default 0. */
  priority?: number;
  /** Requests of one user share what one user gets; undefined is a user too. */
  user?: string;
  /** Ends the run within one step: the iteration and `result` reject with signal.reason. */
  signal?: AbortSignal;
  /** Go on behind the model's end of text, up to maxTokens. */
  ignoreEos?: boolean;
}

/** A request that was checked, its defaults filled in. */
export type ResolvedRequest = EngineRequest &
  Required<Pick<EngineRequest, 'maxTokens' | 'stop' | 'logprobs' | 'priority' | 'ignoreEos'>> & {
    sampling: RequestSampling;
  };

export interface TokenAlternative {
  id: number;
  /** U+FFFD stands for bytes that are no whole character. */
  text: string;
  /** UTF-8, exact. */
  bytes: Uint8Array;
  /** Natural log of the model's probability, before sampling options. */
  logprob: number;
}

export interface GeneratedToken extends TokenAlternative {
  /** The most likely tokens, most likely first; empty unless asked for. */
  top: readonly TokenAlternative[];
}

/** What has come since the piece before. Texts of all pieces joined are the answer; no character is ever cut. */
export interface EnginePiece {
  /** May be empty: tokens whose text waits for the rest of a character, or might begin a stop string. */
  text: string;
  /** `logprob` is NaN unless asked for. */
  tokens: readonly GeneratedToken[];
}

export interface EngineResult {
  text: string;
  /** stop: the model ended the text, or a stop string came; length: maxTokens or the context is used up. */
  finishReason: 'stop' | 'length';
  /** The stop string that ended the text, if one did. */
  stopString: string | null;
  usage: {
    promptTokens: number;
    completionTokens: number;
    /** Of the prompt, those whose keys and values were found in the cache or the store. */
    cachedTokens: number;
  };
  timings: { queuedMs: number; promptMs: number; firstTokenMs: number; tokensPerSecond: number };
  speculation?: { drafted: number; accepted: number };
}

/** A request that runs. A reader that lags pauses this run alone. */
export interface EngineRun extends AsyncIterable<EnginePiece> {
  /**
   * Settles when the run has ended and been read; where it is asked for and the pieces are not, the run reads itself. A
   * rejection that nobody handles is no error of the process.
   */
  readonly result: Promise<EngineResult>;
}

export interface EngineStats {
  /** Whether the worker lives. */
  live: boolean;
  running: number;
  waiting: number;
  /** Of all requests so far. */
  preempted: number;
  promptTokens: number;
  generatedTokens: number;
  steps: number;
  /** Mean of the last steps. */
  stepMs: number;
  cache: {
    capacityTokens: number;
    usedTokens: number;
    /** Of those used, held by shared prefixes that no sequence needs now. */
    sharedTokens: number;
    /** Prompt tokens found in the cache, and prompt tokens looked up, so far. */
    hitTokens: number;
    lookupTokens: number;
  };
  speculation: { drafted: number; accepted: number };
  /** Blocks of 64 tokens found in the store, not found, refused as damaged or foreign, not written; and lookups that failed. */
  store: {
    connected: boolean;
    hits: number;
    misses: number;
    corrupt: number;
    dropped: number;
    errors: number;
  } | null;
}

/** What a server needs of an engine. */
export interface EngineLike {
  readonly model: EngineModel;
  /** In the caller's thread. */
  readonly tokenizer: Tokenizer;
  /** tokenizer.encode without holding up the event loop: long texts go to a thread of their own. */
  encode(text: string, options?: EncodeOptions): Promise<number[]>;
  /** @throws GqaError QUEUE_FULL, CONTEXT_EXCEEDED, DISPOSED, INVALID_ARGUMENT, OUT_OF_RANGE, NON_FINITE, EMPTY_PROMPT */
  submit(request: EngineRequest): EngineRun;
  stats(): EngineStats;
  /** No new requests; resolves when the running ones have finished. */
  drain(): Promise<void>;
  dispose(): Promise<void>;
}
