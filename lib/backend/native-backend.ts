/**
 * The native backend. Numbers reach the addon through one Float64Array, arrays and handles as positional arguments, so
 * that a call costs a fraction of a microsecond. Results are those of contract.ts.
 */
import { DTYPE_CODE, WEIGHT_DTYPE_CODE, cacheDTypeCode } from '../core/dtype';
import type { FloatData, FloatDType } from '../core/dtype';
import type { Addon, AddonInfo, Handle } from './addon';
import type * as contract from './contract';
import { NativeAttention } from './native-attention';
import { NativePackedFiles } from './native-packed-files';
import { NativeArena, NativeWeights } from './native-storage';
import { NativeTraining } from './native-training';
import {
  ActivateSlot,
  ArenaSlot,
  BlockSlot,
  CopySlot,
  CountSlot,
  GatherSlot,
  LinearFlag,
  LinearSlot,
  MergeSlot,
  MoveSlot,
  NormSlot,
  RopeSlot,
  StoreSlot,
  WeightsSlot,
} from './parameters';

/** DotKind in ops.h. */
const DOT_KIND_CODE: Readonly<Record<contract.DotKind, number>> = { bf16: 0, int8: 1 };

/** native/ops_linear.h, enum Combine. */
const COMBINE_CODE = { write: 0, add: 1, gated: 2, activated: 3 } as const;
const COMBINES = 4;

/** native/ops_linear.h, enum ActivationFunction. */
const ACTIVATION_CODE: Readonly<Record<contract.Activation, number>> = {
  silu: 0,
  gelu: 1,
  gelu_tanh: 2,
  relu: 3,
  swiglu_oai: 4,
};

function handleOf(part: contract.LinearPart): Handle {
  return (part.weights as NativeWeights).handle;
}

export class NativeBackend extends NativeTraining implements contract.Backend {
  readonly packedFiles: contract.PackedFiles | null;
  private readonly attention: NativeAttention;

  /** `origin` is the file the addon came from, for people. */
  constructor(
    addon: Addon,
    private readonly addonInfo: AddonInfo,
    private readonly origin: string,
  ) {
    super(addon);
    this.attention = new NativeAttention(addon);
    this.packedFiles = new NativePackedFiles(addon);
  }

  get info(): contract.BackendInfo {
    const { isa, reason } = this.addonInfo;
    return {
      kind: 'native',
      isa,
      threads: this.addon.threads(),
      reason: `${this.origin}: ${reason}`,
    };
  }

  createArena(layout: contract.ArenaLayout): contract.Arena {
    const p = this.parameters;
    p[ArenaSlot.keyDtype] = cacheDTypeCode(layout.keyDtype);
    p[ArenaSlot.valueDtype] = cacheDTypeCode(layout.valueDtype);
    p[ArenaSlot.rotateKeys] = layout.rotateKeys ? 1 : 0;
    p[ArenaSlot.rotateValues] = layout.rotateValues ? 1 : 0;
    p[ArenaSlot.kvHeads] = layout.kvHeads;
    p[ArenaSlot.headDim] = layout.headDim;
    p[ArenaSlot.valueDim] = layout.valueDim;
    p[ArenaSlot.blockTokens] = layout.blockTokens;
    p[ArenaSlot.blocks] = layout.blocks;
    const handle = this.addon.createArena();
    this.check('createArena');
    return new NativeArena(this.addon, handle, p[ArenaSlot.bytes], layout);
  }

  store(args: contract.StoreArgs): void {
    const p = this.parameters;
    const { table } = args;
    p[StoreSlot.dtype] = DTYPE_CODE[args.dtype];
    p[StoreSlot.from] = args.from;
    p[StoreSlot.count] = args.count;
    p[StoreSlot.position] = args.position;
    p[StoreSlot.sinkBlocks] = table.sinkBlocks;
    p[StoreSlot.ringBlocks] = table.ringBlocks;
    this.addon.store(args.k, args.v, table.ids, (args.arena as NativeArena).handle);
    this.check('store');
  }

  copyBlock(args: contract.CopyBlockArgs): void {
    const p = this.parameters;
    p[CopySlot.fromId] = args.fromId;
    p[CopySlot.toId] = args.toId;
    this.addon.copyBlock((args.from as NativeArena).handle, (args.to as NativeArena).handle);
    this.check('copyBlock');
  }

  moveTokens(args: contract.MoveTokensArgs): void {
    const p = this.parameters;
    const { table } = args;
    p[MoveSlot.to] = args.to;
    p[MoveSlot.count] = args.count;
    p[MoveSlot.sinkBlocks] = table.sinkBlocks;
    p[MoveSlot.ringBlocks] = table.ringBlocks;
    this.addon.moveTokens(args.from, table.ids, (args.arena as NativeArena).handle);
    this.check('moveTokens');
  }

  readBlock(args: contract.BlockBytesArgs): void {
    this.writeBlockSlots(args);
    this.addon.readBlock(args.bytes, (args.arena as NativeArena).handle);
    this.check('readBlock');
  }

  writeBlock(args: contract.BlockBytesArgs): void {
    this.writeBlockSlots(args);
    this.addon.writeBlock(args.bytes, (args.arena as NativeArena).handle);
    this.check('writeBlock');
  }

  private writeBlockSlots(args: contract.BlockBytesArgs): void {
    this.parameters[BlockSlot.id] = args.id;
    this.parameters[BlockSlot.tokens] = args.tokens;
  }

  attendStep(args: contract.AttendStepArgs): void {
    this.attention.attendStep(args);
  }

  attend(args: contract.AttendArgs): void {
    this.attention.attend(args);
  }

  attendAsync(args: contract.AttendArgs, cancel: contract.CancelFlag): Promise<boolean> {
    return this.attention.attendAsync(args, cancel);
  }

  merge(args: contract.MergeArgs): void {
    const p = this.parameters;
    p[MergeSlot.dtype] = DTYPE_CODE[args.dtype];
    p[MergeSlot.rows] = args.rows;
    p[MergeSlot.valueDim] = args.valueDim;
    const outs = args.parts.map((part) => part.out);
    const lses = args.parts.map((part) => part.lse);
    this.addon.merge(outs, lses, args.out, args.lse);
    this.check('merge');
  }

  packWeights(args: contract.PackArgs): contract.PackedWeights {
    const p = this.parameters;
    p[WeightsSlot.dtype] = WEIGHT_DTYPE_CODE[args.dtype];
    p[WeightsSlot.rows] = args.rows;
    p[WeightsSlot.columns] = args.columns;
    const handle = this.addon.packWeights(args.weight);
    this.check('packWeights');
    return new NativeWeights(this.addon, handle, p[WeightsSlot.bytes], args.rows, args.columns);
  }

  linear(args: contract.LinearArgs): void {
    const p = this.parameters;
    p[LinearSlot.tokens] = args.tokens;
    p[LinearSlot.parts] = 1;
    p[LinearSlot.combine] = COMBINE_CODE.write;
    p[LinearSlot.flags] = args.precision === 'fast' ? LinearFlag.fast : 0;
    this.addon.linear(args.x, null, handleOf(args), args.out, args.bias);
    this.check('linear');
  }

  fusedLinear(args: contract.FusedLinearArgs): void {
    const p = this.parameters;
    const { norm, parts } = args;
    p[LinearSlot.tokens] = args.tokens;
    p[LinearSlot.parts] = parts.length;
    const activation = ACTIVATION_CODE[args.activation ?? 'silu'];
    p[LinearSlot.combine] = COMBINE_CODE[args.combine] + COMBINES * activation;
    const fast = args.precision === 'fast' ? LinearFlag.fast : 0;
    p[LinearSlot.flags] = fast + (norm?.kind === 'layer' ? LinearFlag.layerNorm : 0);
    p[LinearSlot.eps] = norm === null ? 0 : norm.eps;
    const [first, second, third] = parts;
    this.addon.linear(
      args.x,
      norm === null ? null : norm.weight,
      handleOf(first),
      first.out,
      first.bias,
      second && handleOf(second),
      second?.out,
      second?.bias,
      third && handleOf(third),
      third?.out,
      third?.bias,
      norm?.bias,
    );
    this.check('fusedLinear');
  }

  gather(args: contract.GatherArgs): void {
    this.parameters[GatherSlot.count] = args.count;
    this.addon.gather((args.weights as NativeWeights).handle, args.ids, args.out);
    this.check('gather');
  }

  rmsNorm(args: contract.RmsNormArgs): void {
    this.writeNormSlots(args);
    this.addon.rmsNorm(args.x, args.weight, args.out);
    this.check('rmsNorm');
  }

  layerNorm(args: contract.LayerNormArgs): void {
    this.writeNormSlots(args);
    this.addon.layerNorm(args.x, args.weight, args.out, args.bias);
    this.check('layerNorm');
  }

  private writeNormSlots({ tokens, dim, eps }: contract.RmsNormArgs): void {
    const p = this.parameters;
    p[NormSlot.tokens] = tokens;
    p[NormSlot.dim] = dim;
    p[NormSlot.eps] = eps;
  }

  rope(args: contract.RopeArgs): void {
    const p = this.parameters;
    p[RopeSlot.tokens] = args.tokens;
    p[RopeSlot.heads] = args.heads;
    p[RopeSlot.headDim] = args.headDim;
    p[RopeSlot.rotaryDim] = args.rotaryDim;
    p[RopeSlot.interleaved] = args.interleaved ? 1 : 0;
    this.addon.rope(args.x, args.cos, args.sin);
    this.check('rope');
  }

  activate(args: contract.ActivateArgs): void {
    this.parameters[ActivateSlot.count] = args.count;
    this.parameters[ActivateSlot.function] = ACTIVATION_CODE[args.activation];
    this.addon.activate(args.x, args.second, args.out);
    this.check('activate');
  }

  add(x: Float32Array, y: Float32Array, count: number): void {
    this.parameters[CountSlot.count] = count;
    this.addon.add(x, y);
    this.check('add');
  }

  convert(args: contract.ConvertArgs): void {
    const p = this.parameters;
    p[CountSlot.count] = args.count;
    p[CountSlot.fromDtype] = DTYPE_CODE[args.fromDtype];
    p[CountSlot.toDtype] = DTYPE_CODE[args.toDtype];
    this.addon.convert(args.from, args.to);
    this.check('convert');
  }

  allBelow(data: FloatData, dtype: FloatDType, count: number, limit: number): boolean {
    const p = this.parameters;
    p[CountSlot.count] = count;
    p[CountSlot.fromDtype] = DTYPE_CODE[dtype];
    p[CountSlot.limit] = limit;
    this.addon.allBelow(data);
    this.check('allBelow');
    return p[CountSlot.holds] === 1;
  }

  limitThreads(n: number): void {
    this.addon.limitThreads(n);
  }

  probeRead(buffer: Uint8Array): void {
    this.addon.probeRead(buffer);
    this.check('probeRead');
  }

  probeFma(iterations: number): number {
    return this.addon.probeFma(iterations);
  }

  probeDot(kind: contract.DotKind, iterations: number): number {
    return this.addon.probeDot(DOT_KIND_CODE[kind], iterations);
  }

  probeTiles(iterations: number): number {
    return this.addon.probeTiles(iterations);
  }

  probeWake(): number | null {
    const nanoseconds = this.addon.probeWake();
    return nanoseconds < 0 ? null : nanoseconds / 1e9;
  }
}
