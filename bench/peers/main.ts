/**
 * npm run bench:peers -- attention|model [options]
 *
 * Installs onnxruntime-node, node-llama-cpp and PyTorch into a folder under the user's cache (GQA_PEERS names another),
 * then times them and gqa in turn.
 */
import { Command } from 'commander';
import { addPeerAttention } from './attention-command';
import { addPeerModel } from './model-command';

const program = new Command('bench:peers')
  .description('Time gqa and its peers in turn, each checked against float64 first.')
  .addHelpText(
    'after',
    `
Examples:
  npm run bench:peers -- attention
  npm run bench:peers -- attention --heads 32/8/128 --dtype q8,q4 --html peers.html
  npm run bench:peers -- model --model SmolLM2-135M-Instruct.Q4_1.gguf`,
  );
addPeerAttention(program);
addPeerModel(program);
program.parseAsync().catch((error: unknown) => {
  console.error(error);
  process.exitCode = 1;
});
