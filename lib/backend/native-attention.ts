/** Attention through the addon: its arguments as numbers and arrays. */
import { DTYPE_CODE } from '../core/dtype';
import type { Addon } from './addon';
import type * as contract from './contract';
import { checkStatus, statusError } from './native-status';
import type { NativeArena } from './native-storage';
import { AttendFlag, AttendSlot, Status, StepSlot } from './parameters';

export class NativeAttention {
  private readonly parameters: Float64Array;

  constructor(private readonly addon: Addon) {
    this.parameters = addon.parameters;
  }

  attend(args: contract.AttendArgs): void {
    this.writeAttend(args);
    const kv = args.kv;
    const cached = kv.type === 'cache';
    const tail = cached ? kv.tail : null;
    this.addon.attend(
      args.q,
      args.out,
      cached ? kv.table.ids : kv.k,
      cached ? (kv.arena as NativeArena).handle : kv.v,
      args.lse,
      args.mask === null ? null : args.mask.data,
      args.bias === null ? null : args.bias.data,
      args.alibiSlopes,
      args.sinkLogits,
      args.sinkQ,
      tail === null ? null : tail.table.ids,
      tail === null ? null : (tail.arena as NativeArena).handle,
      args.stats === null ? null : args.stats.data,
    );
    checkStatus(this.parameters, 'attend');
  }

  async attendAsync(args: contract.AttendArgs, cancel: contract.CancelFlag): Promise<boolean> {
    this.writeAttend(args);
    const kv = args.kv;
    const cached = kv.type === 'cache';
    const tail = cached ? kv.tail : null;
    const done = this.addon.attendAsync(
      args.q,
      args.out,
      cached ? kv.table.ids : kv.k,
      cached ? (kv.arena as NativeArena).handle : kv.v,
      args.lse,
      args.mask === null ? null : args.mask.data,
      args.bias === null ? null : args.bias.data,
      args.alibiSlopes,
      args.sinkLogits,
      args.sinkQ,
      tail === null ? null : tail.table.ids,
      tail === null ? null : (tail.arena as NativeArena).handle,
      args.stats === null ? null : args.stats.data,
      cancel,
    );
    checkStatus(this.parameters, 'attendAsync');
    const status = await done;
    if (status === Status.outOfMemory) throw statusError('attendAsync', status, 0);
    return status === Status.ok;
  }

  attendStep(args: contract.AttendStepArgs): void {
    const p = this.parameters;
    const { plan, tailArena } = args;
    let flags = this.writeRows(args);
    if (args.sinkQ !== null) flags |= AttendFlag.sinkQ;
    if (tailArena !== null) flags |= AttendFlag.tail;
    p[AttendSlot.flags] = flags;
    p[AttendSlot.batch] = 1;
    p[AttendSlot.queryTokens] = args.tokens;
    p[AttendSlot.keyTokens] = 0;
    p[AttendSlot.dropout] = 0;
    p[AttendSlot.dropoutSeed] = 0;
    p[AttendSlot.sinkBlocks] = plan.sinkBlocks;
    p[AttendSlot.ringBlocks] = plan.ringBlocks;
    p[AttendSlot.tailSinkBlocks] = plan.tailSinkBlocks;
    p[AttendSlot.tailRingBlocks] = plan.tailRingBlocks;
    p[StepSlot.count] = plan.count;
    p[StepSlot.shareCount] = plan.shareCount;
    this.addon.attendStep(
      args.q,
      args.out,
      plan.ids,
      (args.arena as NativeArena).handle,
      args.lse,
      plan.entries,
      plan.trees,
      args.alibiSlopes,
      args.sinkLogits,
      args.sinkQ,
      plan.shares,
      tailArena === null ? null : (tailArena as NativeArena).handle,
      args.stats === null ? null : args.stats.data,
      plan.members,
    );
    checkStatus(p, 'attendStep');
  }

  private writeAttend(args: contract.AttendArgs): void {
    const p = this.parameters;
    const { kv, mask, bias, dropout } = args;
    let flags = this.writeRows(args);
    if (args.causal) flags |= AttendFlag.causal;
    if (kv.type === 'cache') {
      flags |= AttendFlag.cache;
      p[AttendSlot.sinkBlocks] = kv.table.sinkBlocks;
      p[AttendSlot.ringBlocks] = kv.table.ringBlocks;
      if (args.sinkQ !== null) flags |= AttendFlag.sinkQ;
      if (kv.tail !== null) {
        flags |= AttendFlag.tail;
        p[AttendSlot.tailSinkBlocks] = kv.tail.table.sinkBlocks;
        p[AttendSlot.tailRingBlocks] = kv.tail.table.ringBlocks;
        p[AttendSlot.tailSinkOrdinals] = kv.tail.sinkOrdinals;
        p[AttendSlot.tailFirstOrdinal] = kv.tail.firstOrdinal;
      }
    } else {
      p[AttendSlot.kvDtype] = DTYPE_CODE[kv.dtype];
    }
    if (mask !== null) {
      flags |= AttendFlag.mask;
      p[AttendSlot.maskBatchStride] = mask.batchStride;
      p[AttendSlot.maskHeadStride] = mask.headStride;
    }
    if (bias !== null) {
      flags |= AttendFlag.bias;
      p[AttendSlot.biasBatchStride] = bias.batchStride;
      p[AttendSlot.biasHeadStride] = bias.headStride;
    }
    p[AttendSlot.dropout] = dropout === null ? 0 : dropout.probability;
    p[AttendSlot.dropoutSeed] = dropout === null ? 0 : dropout.seed;
    p[AttendSlot.flags] = flags;
    p[AttendSlot.batch] = args.batch;
    p[AttendSlot.queryTokens] = args.queryTokens;
    p[AttendSlot.keyTokens] = args.keyTokens;
  }

  /** What attend and attendStep have in common; returns its flags. */
  private writeRows(args: contract.AttendArgs | contract.AttendStepArgs): number {
    const p = this.parameters;
    let flags = 0;
    if (args.precision === 'fast') flags |= AttendFlag.fast;
    if (args.lse !== null) flags |= AttendFlag.lse;
    if (args.alibiSlopes !== null) flags |= AttendFlag.alibi;
    if (args.sinkLogits !== null) flags |= AttendFlag.sinkLogits;
    if (args.stats !== null) {
      flags |= AttendFlag.statistics;
      p[AttendSlot.statisticsRows] = args.stats.rows;
      p[AttendSlot.statisticsFirstRow] = args.stats.firstRow;
      p[AttendSlot.statisticsSinkTokens] = args.stats.sinkTokens;
      p[AttendSlot.statisticsRecentTokens] = args.stats.recentTokens;
    }
    p[AttendSlot.qDtype] = DTYPE_CODE[args.qDtype];
    p[AttendSlot.outDtype] = DTYPE_CODE[args.outDtype];
    p[AttendSlot.heads] = args.heads;
    p[AttendSlot.kvHeads] = args.kvHeads;
    p[AttendSlot.headDim] = args.headDim;
    p[AttendSlot.valueDim] = args.valueDim;
    p[AttendSlot.window] = args.window;
    p[AttendSlot.sinkTokens] = args.sinkTokens;
    p[AttendSlot.scale] = args.scale;
    p[AttendSlot.softcap] = args.softcap;
    return flags;
  }
}
