/** node-llama-cpp with several sequences of one context, in a process of its own: `llama-cpp.js FOLDER MODEL PROMPTS TOKENS`. */
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

interface Sequence {
  evaluate(ids: number[], options: { temperature: number }): AsyncGenerator<number, unknown>;
}
interface NodeLlamaCpp {
  getLlama: (options: object) => Promise<{
    loadModel(options: object): Promise<{
      createContext(options: object): Promise<{ getSequence(): Sequence }>;
    }>;
  }>;
}

async function take(sequence: Sequence, ids: number[], tokens: number): Promise<number[]> {
  const taken: number[] = [];
  for await (const token of sequence.evaluate(ids, { temperature: 0 })) {
    taken.push(token);
    if (taken.length === tokens) break;
  }
  return taken;
}

async function main(): Promise<void> {
  const [folder, modelPath, promptsText, tokensText, threadsText] = process.argv.slice(2);
  const prompts = JSON.parse(promptsText) as number[][];
  const [tokens, threads] = [Number(tokensText), Number(threadsText)];
  const entry = join(folder, 'node_modules', 'node-llama-cpp', 'dist', 'index.js');
  const { getLlama } = (await import(pathToFileURL(entry).href)) as NodeLlamaCpp;
  const llama = await getLlama({
    ...{ gpu: false, build: 'never', maxThreads: threads, logLevel: 'error', progressLogs: false },
  });
  const model = await llama.loadModel({ modelPath, gpuLayers: 0 });
  const context = await model.createContext({
    ...{ contextSize: 1024, batchSize: 512, flashAttention: true, sequences: prompts.length },
    threads: { ideal: threads, min: threads },
  });
  const sequences = prompts.map(() => context.getSequence());
  // Once to warm up, with another prompt, so that no prefix is kept.
  await Promise.all(sequences.map((sequence, i) => take(sequence, prompts[i].slice(1), 4)));
  const startedAt = performance.now();
  const ids = await Promise.all(sequences.map((sequence, i) => take(sequence, prompts[i], tokens)));
  const seconds = (performance.now() - startedAt) / 1000;
  process.stdout.write(
    JSON.stringify({ tokensPerSecond: (prompts.length * tokens) / seconds, ids }),
  );
  process.exit(0);
}

void main();
