/** The step of training: AdamW, and the norm that gradients are clipped by. Each element in f64, rounded once. */
import type { AdamWArgs } from '../contract-training';

const { sqrt } = Math;

export function adamW(args: AdamWArgs): void {
  const { weight, gradient, m, v, count, gradientScale, rate, eps, decay } = args;
  const { beta1, beta2, correction1, correction2 } = args;
  for (let i = 0; i < count; i++) {
    const g = gradientScale * gradient[i];
    const first = beta1 * m[i] + (1 - beta1) * g;
    const second = beta2 * v[i] + (1 - beta2) * g * g;
    const step = first / correction1 / (sqrt(second / correction2) + eps);
    m[i] = first;
    v[i] = second;
    weight[i] -= rate * (step + decay * weight[i]);
  }
}

export function sumSquares(x: Float32Array, count: number): number {
  let sum = 0;
  for (let i = 0; i < count; i++) sum += x[i] * x[i];
  return sum;
}
