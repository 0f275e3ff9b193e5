/**
 * The output projection again, by least squares: given what a converted layer's attention gives for the calibration text,
 * c [heads * D], and what the original layer put out, o [hiddenSize] (before its bias),
 *   min over W of E|o - W c|^2 + lambda |W - W_0|^2,   W = (E[o c^T] + lambda W_0) (E[c c^T] + lambda I)^-1,
 * with W_0 the projection that folding gave and lambda a small share of the mean of c^2: directions that the text does not
 * show stay as they were.
 */
import { CholeskyDecomposition, Matrix } from 'ml-matrix';
import { Moments, toMatrix, type Rows } from './matrices';

/** Share of the mean energy of c; a tenth or ten times as much change the result little. */
const RIDGE = 1e-3;

export class OutputRefit {
  private readonly own: Moments;
  private readonly cross: Moments;

  constructor(
    private readonly inputs: number,
    private readonly hiddenSize: number,
  ) {
    this.own = new Moments(inputs, inputs);
    this.cross = new Moments(inputs, hiddenSize);
  }

  /** context [tokens, heads * headDim] of the converted layer, output [tokens, hiddenSize] of the original. */
  add(context: Float32Array, output: Float32Array): void {
    const tokens = output.length / this.hiddenSize;
    const x: Rows = { data: context, rows: tokens, columns: this.inputs };
    this.own.add(x, x);
    this.cross.add(x, { data: output, rows: tokens, columns: this.hiddenSize });
  }

  /** [hiddenSize, heads * headDim]; `folded` where there was no text. */
  solve(folded: Rows): Rows {
    const moment = this.own.mean();
    const energy = moment.trace() / this.inputs;
    if (!(energy > 0)) return folded;
    const ridge = RIDGE * energy;
    const left = moment.add(Matrix.eye(this.inputs).mul(ridge));
    const right = this.cross.mean().add(toMatrix(folded).transpose().mul(ridge));
    const solution = new CholeskyDecomposition(left).solve(right);
    return { ...folded, data: Float32Array.from(solution.transpose().to1DArray()) };
  }
}
