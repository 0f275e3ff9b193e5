/** node-llama-cpp on the CPU: one sequence, flash attention on, f16 cache. */
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { timeTokens, type ModelHandlers } from '../model-task';
import { serve } from '../protocol';

interface LlamaSequence {
  clearHistory(): Promise<void>;
  evaluate(ids: number[], options: { temperature: number }): AsyncGenerator<number, unknown>;
}
interface LlamaModel {
  createContext(options: object): Promise<{ getSequence(): LlamaSequence }>;
}
interface NodeLlamaCpp {
  getLlama: (options: object) => Promise<{ loadModel(options: object): Promise<LlamaModel> }>;
}

/** llama.cpp's own default: prompts are cut into batches of so many tokens. */
const BATCH_TOKENS = 512;

let sequence: LlamaSequence;

const handlers: ModelHandlers = {
  async load({ path, threads, contextLength }) {
    const entry = join(process.argv[2], 'node_modules', 'node-llama-cpp', 'dist', 'index.js');
    const { getLlama } = (await import(pathToFileURL(entry).href)) as NodeLlamaCpp;
    const llama = await getLlama({
      ...{ gpu: false, build: 'never', maxThreads: threads, logLevel: 'error' },
      progressLogs: false,
    });
    const model = await llama.loadModel({ modelPath: path, gpuLayers: 0 });
    const context = await model.createContext({
      ...{ contextSize: contextLength, batchSize: BATCH_TOKENS, flashAttention: true },
      threads: { ideal: threads, min: threads },
    });
    sequence = context.getSequence();
  },
  async run({ ids, tokens }) {
    await sequence.clearHistory();
    return timeTokens(sequence.evaluate(ids, { temperature: 0 }), tokens);
  },
};

serve({ ...handlers });
