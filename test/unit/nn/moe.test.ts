/** The mixture of experts against plain float64 loops; a token gets the same bits in any company. */
import { getBackend } from '../../../lib/backend';
import { Linear, MoE, RmsNorm, Scratch, type Activation, type MoEParts } from '../../../lib/nn';
import { linearOracle, rmsNormOracle } from '../../oracle';
import { expectClose } from '../../support/compare';
import { Random } from '../../support/random';
import { f32Tensor } from '../../support/tensors';
import { FUSED_LINEAR } from '../../tolerances';
import { errorOf } from '../refusals';

const DIM = 20;
const WIDTH = 13;
const EXPERTS = 7;
const EPS = 1e-5;

interface Layer {
  weight: number[];
  bias: number[] | null;
  out: number;
}

/** Numbers of all layers, and the layers made of them. */
class Setup {
  private readonly random = new Random(11);
  readonly norm = this.numbers(DIM);
  readonly router = this.layer(EXPERTS, DIM);
  readonly experts = Array.from({ length: EXPERTS }, () => ({
    gate: this.layer(WIDTH, DIM),
    up: this.layer(WIDTH, DIM),
    down: this.layer(DIM, WIDTH),
  }));

  constructor(readonly biased: boolean) {}

  numbers(count: number): number[] {
    return [...Float32Array.from(this.random.normals(count))];
  }

  make(own: Partial<MoEParts> = {}): MoE {
    return new MoE({
      norm: new RmsNorm(f32Tensor(this.norm, [DIM]), EPS),
      router: linear(this.router),
      experts: this.experts.map(({ gate, up, down }) => ({
        gate: linear(gate),
        up: linear(up),
        down: linear(down),
      })),
      expertsPerToken: 3,
      activation: 'silu',
      ...own,
    });
  }

  private layer(out: number, input: number): Layer {
    return {
      weight: this.numbers(out * input),
      bias: this.biased ? this.numbers(out) : null,
      out,
    };
  }
}

function linear({ weight, bias, out }: Layer): Linear {
  const bits = f32Tensor(weight, [out, weight.length / out]);
  return new Linear(bits, bias && f32Tensor(bias, [out]));
}

function apply(moe: MoE, x: number[], out = new Float32Array(x.length)): Float32Array {
  const rows = x.length / DIM;
  moe.addTo(out, Float32Array.from(x), { rows, step: null as never, scratch: new Scratch(64) });
  return out;
}

/** One token [DIM] at a time, every expert computed; those that are not chosen have no share. */
function naive(
  setup: Setup,
  x: number[],
  expertsPerToken: number,
  over: 'chosen' | 'all',
  combine: (gate: number, up: number) => number,
): number[] {
  const run = (layer: Layer, y: number[]) =>
    linearOracle(y, layer.weight, layer.bias, layer.out, y.length);
  const out: number[] = [];
  for (let at = 0; at < x.length; at += DIM) {
    const n = rmsNormOracle(x.slice(at, at + DIM), setup.norm, EPS);
    const logits = run(setup.router, n);
    const chosen = logits
      .map((_, e) => e)
      .sort((a, b) => logits[b] - logits[a])
      .slice(0, expertsPerToken);
    const summed = over === 'all' ? logits : chosen.map((e) => logits[e]);
    const total = summed.reduce((sum, logit) => sum + Math.exp(logit), 0);
    const row = new Array<number>(DIM).fill(0);
    for (const e of chosen) {
      const { gate, up, down } = setup.experts[e];
      const [gates, ups] = [run(gate, n), run(up, n)];
      const result = run(
        down,
        gates.map((g, i) => combine(g, ups[i])),
      );
      result.forEach((y, d) => (row[d] += (Math.exp(logits[e]) / total) * y));
    }
    out.push(...row);
  }
  return out;
}

const silu = (gate: number, up: number): number => (gate / (1 + Math.exp(-gate))) * up;
const oai = (gate: number, up: number): number => {
  const g = Math.min(gate, 7);
  return (g / (1 + Math.exp(-1.702 * g))) * (Math.min(Math.max(up, -7), 7) + 1);
};

test.each<[string, boolean, Partial<MoEParts>, 'chosen' | 'all', Activation]>([
  ['top 3, shares of the chosen', false, {}, 'chosen', 'silu'],
  ['top 1', false, { expertsPerToken: 1 }, 'chosen', 'silu'],
  ['every expert', false, { expertsPerToken: EXPERTS }, 'chosen', 'silu'],
  ['shares of all', false, { shares: 'all' }, 'all', 'silu'],
  ['biases and swiglu_oai', true, {}, 'chosen', 'swiglu_oai'],
])('%s', (_, biased, own, over, activation) => {
  const setup = new Setup(biased);
  const x = setup.numbers(17 * DIM);
  const moe = setup.make({ ...own, activation });
  const combine = activation === 'silu' ? silu : oai;
  const expected = naive(setup, x, own.expertsPerToken ?? 3, over, combine);
  expectClose('experts', apply(moe, x), expected, 8 * FUSED_LINEAR);
});

it('gives a token the same bits alone and in any batch, and adds to what is there', () => {
  const setup = new Setup(true);
  const moe = setup.make();
  const x = setup.numbers(40 * DIM);
  const together = apply(moe, x);
  for (const count of [1, 3, 16]) {
    for (let from = 0; from < 40; from += count) {
      const part = apply(moe, x.slice(from * DIM, (from + count) * DIM));
      expect(part).toEqual(together.slice(from * DIM, from * DIM + part.length));
    }
  }
  const onto = apply(moe, x, new Float32Array(x.length).fill(100));
  expect(onto.every((y, i) => Math.abs(y - 100 - together[i]) < 1e-4)).toBe(true);
});

it('computes each expert once for all tokens of a batch that go to it, and no other', () => {
  const setup = new Setup(false);
  const [x, spy] = [setup.numbers(40 * DIM), jest.spyOn(getBackend(), 'fusedLinear')];
  const callsOf = (rows: number): number => {
    spy.mockClear();
    apply(setup.make(), x.slice(0, rows * DIM));
    return spy.mock.calls.length;
  };
  // One of the router, and two of each expert.
  expect(callsOf(40)).toBe(1 + 2 * EXPERTS);
  expect(callsOf(1)).toBe(1 + 2 * 3);
  spy.mockRestore();
});

it('may add to its own input, with and without a norm', () => {
  const setup = new Setup(false);
  for (const norm of [undefined, null]) {
    const moe = setup.make(norm === null ? { norm } : {});
    const x = Float32Array.from(setup.numbers(9 * DIM));
    const apart = apply(moe, [...x], x.slice());
    moe.addTo(x, x, { rows: 9, step: null as never, scratch: new Scratch(16) });
    expect(x).toEqual(apart);
  }
});

it('takes the first of experts with equal logits, and passes NaN on to its own token alone', () => {
  const setup = new Setup(false);
  setup.router.weight.fill(0);
  const moe = setup.make({ expertsPerToken: 2 });
  const x = setup.numbers(3 * DIM);
  expectClose('ties', apply(moe, x), naive(setup, x, 2, 'chosen', silu), 8 * FUSED_LINEAR);
  const damaged = x.map((v, i) => (i === DIM ? NaN : v));
  const out = apply(moe, damaged);
  const clean = apply(moe, x);
  expect(out.subarray(DIM, 2 * DIM).every(Number.isNaN)).toBe(true);
  expect(out.subarray(0, DIM)).toEqual(clean.subarray(0, DIM));
  expect(out.subarray(2 * DIM)).toEqual(clean.subarray(2 * DIM));
});

it('counts its bytes and frees them', () => {
  const moe = new Setup(true).make();
  const held = DIM * EXPERTS + EXPERTS * 3 * DIM * WIDTH;
  expect(moe.bytes).toBeGreaterThanOrEqual(4 * held);
  moe.dispose();
  expect(moe.bytes).toBeLessThan(4 * held);
});

it('refuses parts that do not fit together', () => {
  const setup = new Setup(false);
  const made = (own: Partial<MoEParts>): string => errorOf(() => setup.make(own));
  const expert = (gate: number, up: number, down: [number, number]) => ({
    gate: linear({ weight: setup.numbers(gate * DIM), bias: null, out: gate }),
    up: linear({ weight: setup.numbers(up * DIM), bias: null, out: up }),
    down: linear({ weight: setup.numbers(down[0] * down[1]), bias: null, out: down[0] }),
  });
  const fitting = Array.from({ length: EXPERTS }, () => expert(WIDTH, WIDTH, [DIM, WIDTH]));
  const with2 = (odd: ReturnType<typeof expert>) => [
    ...fitting.slice(0, 2),
    odd,
    ...fitting.slice(3),
  ];
  expect(made({ experts: fitting.slice(1) })).toBe('INVALID_SHAPE experts');
  expect(made({ experts: with2(expert(WIDTH, 12, [DIM, WIDTH])) })).toBe(
    'INVALID_SHAPE experts[2]',
  );
  expect(made({ experts: with2(expert(8, 8, [DIM, WIDTH])) })).toBe('INVALID_SHAPE experts[2]');
  expect(made({ experts: with2(expert(8, 8, [19, 8])) })).toBe('INVALID_SHAPE experts[2]');
  expect(made({ expertsPerToken: 0 })).toBe('OUT_OF_RANGE expertsPerToken');
  expect(made({ expertsPerToken: 8 })).toBe('OUT_OF_RANGE expertsPerToken');
  expect(made({ shares: 'some' as never })).toBe('INVALID_ARGUMENT shares');
  const norm = new RmsNorm(f32Tensor(setup.numbers(8), [8]), EPS);
  expect(made({ norm })).toBe('INVALID_SHAPE norm');
});
