/** Runs the cases of a sweep one after the other and turns their measurements into rows. */
import { availableParallelism, cpus } from 'node:os';
import type { Backend } from '../../backend/contract';
import { packageVersion } from '../about';
import type { Status } from '../terminal';
import { LimitProbe } from './limits';
import { measure, type Measurement, type Subject } from './measure';
import type { Column, Plot, Row } from './report';
import { bf16Peak } from './roofline';

export interface SweepCase {
  name: string;
  threads: number;
  /** Cells that say which case it is. */
  labels: Row;
  prepare: () => Subject;
}

/** Every combination of one value from each axis, the last axis turning fastest. */
export function cross<T extends readonly unknown[][]>(
  ...axes: T
): { [K in keyof T]: T[K][number] }[] {
  const combinations = axes.reduce<unknown[][]>(
    (before, axis) => before.flatMap((values) => axis.map((value) => [...values, value])),
    [[]],
  );
  return combinations as { [K in keyof T]: T[K][number] }[];
}

export interface SweepContext {
  backend: Backend;
  /** Seconds of timing for each case. */
  seconds: number;
  status: Status;
  signal: AbortSignal;
}

/** What every sweep over operations reports, after its own labels. */
export const MEASURED_COLUMNS: Column[] = [
  { key: 'threads', title: 'threads' },
  { key: 'medianMicroseconds', title: 'µs', decimals: 1 },
  { key: 'p10Microseconds', title: 'p10', decimals: 1 },
  { key: 'p90Microseconds', title: 'p90', decimals: 1 },
  { key: 'samples' },
  { key: 'gigabytesPerSecond', title: 'GB/s', decimals: 1 },
  { key: 'gigaflops', title: 'GFLOP/s', decimals: 1 },
  { key: 'roofline', title: 'of roofline', style: 'percent' },
  { key: 'bound', title: 'bound by' },
  { key: 'readLimitGigabytesPerSecond', title: 'read limit', decimals: 1 },
  { key: 'peakGigaflops', title: 'peak', decimals: 0 },
  { key: 'fmaPeakGigaflops' },
  { key: 'bf16PeakGigaflops' },
  { key: 'int8PeakGigaflops' },
  { key: 'tilePeakGigaflops' },
  { key: 'ofBf16Peak', title: 'of bf16 peak', style: 'percent' },
  { key: 'slowTiles', title: 'AMX slow', style: 'percent' },
  { key: 'error', title: 'error', style: 'scientific' },
];

/** The plot of every such sweep: shares of the roofline. */
export function rooflinePlot(panel: string[], label: string[]): Plot {
  return {
    ...{ title: 'Share of the roofline', value: 'roofline', reference: 1 },
    ...{ panel, label, colour: 'dtype' },
  };
}

export const MEASURED_NOTES = [
  'Time is the median of one call, in microseconds, beside its 10th and 90th percentile. Of roofline: the larger of',
  'bytes / read limit and FLOP / peak, divided by that time; both limits (GB/s, GFLOP/s) were measured between the timings',
  'of the same case with as many threads. The peak is that of f32 FMA, for q8 and q4 caches four times it; of linear layers',
  'in precision fast it is that of bf16 or 8-bit products. Error: against float64, checked before timing.',
];

export function machineRow(backend: Backend): Row {
  const { kind, isa } = backend.info;
  return {
    gqa: packageVersion(),
    backend: kind,
    isa,
    cpu: cpus()[0]?.model.trim() ?? process.arch,
    cpus: availableParallelism(),
    node: process.version,
  };
}

function measuredRow(threads: number, measured: Measurement): Row {
  const { microseconds, limits } = measured;
  return {
    threads,
    medianMicroseconds: microseconds.median,
    p10Microseconds: microseconds.p10,
    p90Microseconds: microseconds.p90,
    samples: microseconds.samples,
    gigabytesPerSecond: measured.gigabytes || null,
    gigaflops: measured.gigaflops,
    roofline: measured.roofline,
    bound: measured.bound === 'read' ? 'reading' : measured.bound,
    readLimitGigabytesPerSecond: limits.read / 1e9,
    peakGigaflops: measured.peakGigaflops,
    fmaPeakGigaflops: limits.fma / 1e9,
    bf16PeakGigaflops: limits.bf16 / 1e9 || null,
    int8PeakGigaflops: limits.int8 / 1e9 || null,
    tilePeakGigaflops: limits.tiles / 1e9 || null,
    slowTiles: measured.slowTiles,
    error: measured.error,
  };
}

/** What bf16 reaches of the peak of its own products, where arithmetic decides. */
function bf16Share({ dtype }: Row, { bound, gigaflops, limits }: Measurement): Row {
  if (dtype !== 'bf16' || bound === 'read') return {};
  return { ofBf16Peak: (gigaflops * 1e9) / bf16Peak(limits) };
}

function summary(name: string, threads: number, measured: Measurement): string {
  const { microseconds, roofline, slowTiles } = measured;
  const time = `${microseconds.median.toFixed(1)} µs`;
  const slow = slowTiles ? `, AMX slow ${(slowTiles * 100).toFixed(0)} % of the time` : '';
  return `${name}, ${threads} thr: ${time}, ${(roofline * 100).toFixed(0)} % of roofline${slow}`;
}

/** Rows of the cases that ran; an abort leaves out the rest. */
export async function runSweep(
  cases: SweepCase[],
  { backend, seconds, status, signal }: SweepContext,
): Promise<Row[]> {
  const rows: Row[] = [];
  const allThreads = backend.info.threads;
  status.update('measuring the machine');
  const probe = new LimitProbe(backend);
  for (const [index, { name, threads, labels, prepare }] of cases.entries()) {
    if (signal.aborted) break;
    status.update(`[${index + 1}/${cases.length}] ${name}, ${threads} thr`);
    backend.limitThreads(threads);
    const subject = prepare();
    try {
      const measured = await measure(subject, probe, seconds, signal);
      rows.push({ ...labels, ...measuredRow(threads, measured), ...bf16Share(labels, measured) });
      status.note(`[${index + 1}/${cases.length}] ${summary(name, threads, measured)}`);
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      subject.dispose();
    }
  }
  backend.limitThreads(allThreads);
  return rows;
}
