import { logSumExp } from '../../../lib/model/log-sum-exp';
import { openCheckpoint, type Checkpoint } from '../../../lib/model/checkpoint';
import { embeddedModel } from '../../../lib/model/embedded';
import { loadArchitecture } from '../../../lib/model/arch';
import { LayerPass } from '../../../lib/toolkit/layer-pass';
import { OutputHead } from '../../../lib/toolkit/output-head';

/** Two texts of different lengths, the second longer than what the head scores at once. */
const windows = [7, 90].map((length, text) =>
  Int32Array.from({ length }, (_, i) => (i === 0 ? 1 : 3 + ((i * 37 + text * 11) % 1000))),
);
const LONGEST = 90;

let checkpoint: Checkpoint;
beforeAll(() => {
  checkpoint = openCheckpoint(embeddedModel.path);
});
afterAll(() => checkpoint.weights.close());

/** -ln p of each scored token, by the runner's own model. */
function nllOfRunner(): number {
  const model = loadArchitecture(checkpoint.config, checkpoint.weights);
  const { vocabSize } = model.config;
  let nll = 0;
  for (const ids of windows) {
    const cache = model.createCache({ capacity: LONGEST });
    const logits = model.forward(ids, cache.sequence(), 'all');
    for (let i = 0; i + 1 < ids.length; i++) {
      const row = logits.subarray(i * vocabSize, (i + 1) * vocabSize);
      nll += logSumExp(row) - row[ids[i + 1]];
    }
    cache.dispose();
  }
  model.dispose();
  return nll;
}

function finalStates() {
  const { config, weights } = checkpoint;
  const pass = new LayerPass(config, weights, LONGEST);
  const states = pass.embed(windows);
  for (const layer of pass.layers()) pass.advance(layer, states);
  return states;
}

test('a model run layer by layer predicts what it predicts token by token', () => {
  const head = new OutputHead(checkpoint.config, checkpoint.weights);
  const { nll, tokens } = head.predict(finalStates());
  head.dispose();
  expect(tokens).toBe(6 + 89);
  expect(Math.abs(nll / nllOfRunner() - 1)).toBeLessThan(1e-5);
});

test('two models are compared token by token', () => {
  const head = new OutputHead(checkpoint.config, checkpoint.weights);
  const before = finalStates();
  const after = before.copy();
  const same = head.compare(before, after);
  expect(same.kl).toBeCloseTo(0, 4);
  expect(same.agreed).toBe(same.before.tokens);
  expect(same.after.nll).toBe(same.before.nll);

  for (const x of after.rows()) for (let i = 0; i < x.length; i += 2) x[i] *= 1.5;
  const other = head.compare(before, after);
  expect(other.before.nll).toBe(same.before.nll);
  expect(other.after.nll).toBeCloseTo(head.predict(after).nll, 2);
  expect(other.kl).toBeGreaterThan(1);
  head.dispose();
});
