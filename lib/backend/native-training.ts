/** The operations of training through the addon: their arguments as numbers and arrays. */
import type { Addon } from './addon';
import type * as training from './contract-training';
import { checkStatus } from './native-status';
import {
  AdamWSlot,
  AttendFlag,
  AttendSlot,
  CountSlot,
  CrossEntropySlot,
  NormSlot,
  SumSlot,
  TransposeSlot,
} from './parameters';

export class NativeTraining implements training.TrainingBackend {
  protected readonly parameters: Float64Array;

  constructor(protected readonly addon: Addon) {
    this.parameters = addon.parameters;
  }

  attendBackward(args: training.AttendBackwardArgs): void {
    const p = this.parameters;
    p[AttendSlot.flags] = args.causal ? AttendFlag.causal : 0;
    p[AttendSlot.batch] = args.batch;
    p[AttendSlot.queryTokens] = args.queryTokens;
    p[AttendSlot.keyTokens] = args.keyTokens;
    p[AttendSlot.heads] = args.heads;
    p[AttendSlot.kvHeads] = args.kvHeads;
    p[AttendSlot.headDim] = args.headDim;
    p[AttendSlot.valueDim] = args.valueDim;
    p[AttendSlot.window] = args.window;
    p[AttendSlot.sinkTokens] = args.sinkTokens;
    p[AttendSlot.scale] = args.scale;
    p[AttendSlot.softcap] = args.softcap;
    this.addon.attendBackward(
      args.q,
      args.k,
      args.v,
      args.out,
      args.lse,
      args.gradOut,
      args.gradQ,
      args.gradK,
      args.gradV,
    );
    this.check('attendBackward');
  }

  transpose(args: training.TransposeArgs): void {
    this.parameters[TransposeSlot.rows] = args.rows;
    this.parameters[TransposeSlot.columns] = args.columns;
    this.addon.transpose(args.x, args.out);
    this.check('transpose');
  }

  rmsNormBackward(args: training.RmsNormBackwardArgs): void {
    const p = this.parameters;
    p[NormSlot.tokens] = args.tokens;
    p[NormSlot.dim] = args.dim;
    p[NormSlot.eps] = args.eps;
    this.addon.rmsNormBackward(args.x, args.weight, args.gradOut, args.gradX, args.gradWeight);
    this.check('rmsNormBackward');
  }

  swigluBackward(args: training.SwigluBackwardArgs): void {
    this.parameters[CountSlot.count] = args.count;
    this.addon.swigluBackward(args.gate, args.up, args.gradOut, args.gradGate, args.gradUp);
    this.check('swigluBackward');
  }

  crossEntropy(args: training.CrossEntropyArgs): void {
    const p = this.parameters;
    p[CrossEntropySlot.rows] = args.rows;
    p[CrossEntropySlot.vocab] = args.vocab;
    p[CrossEntropySlot.teacherShare] = args.teacherShare;
    p[CrossEntropySlot.weight] = args.weight;
    this.addon.crossEntropy(args.logits, args.teacher, args.targets, args.nll, args.kl);
    this.check('crossEntropy');
  }

  adamW(args: training.AdamWArgs): void {
    const p = this.parameters;
    p[AdamWSlot.count] = args.count;
    p[AdamWSlot.gradientScale] = args.gradientScale;
    p[AdamWSlot.rate] = args.rate;
    p[AdamWSlot.beta1] = args.beta1;
    p[AdamWSlot.beta2] = args.beta2;
    p[AdamWSlot.eps] = args.eps;
    p[AdamWSlot.decay] = args.decay;
    p[AdamWSlot.correction1] = args.correction1;
    p[AdamWSlot.correction2] = args.correction2;
    this.addon.adamW(args.weight, args.gradient, args.m, args.v);
    this.check('adamW');
  }

  sumSquares(x: Float32Array, count: number): number {
    this.parameters[SumSlot.count] = count;
    this.addon.sumSquares(x);
    this.check('sumSquares');
    return this.parameters[SumSlot.sum];
  }

  protected check(operation: string): void {
    checkStatus(this.parameters, operation);
  }
}
