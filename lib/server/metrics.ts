/** Metrics for Prometheus: requests as they end, the engine's figures as they stand when asked for. */
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { EngineLike, EngineResult, EngineStats } from '../engine/types';

const SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120];

/** Of one choice: how it ended. */
export type Outcome = 'stop' | 'length' | 'cancelled' | 'error' | 'rejected';

export class Metrics {
  readonly registry = new Registry();
  private readonly http: Counter<'method' | 'route' | 'status'>;
  private readonly httpSeconds: Histogram<'route'>;
  private readonly choices: Counter<'outcome'>;
  private readonly queueSeconds: Histogram;
  private readonly firstTokenSeconds: Histogram;
  private readonly tokenSeconds: Histogram;

  constructor(engine: EngineLike) {
    const registers = [this.registry];
    const seconds = (name: string, help: string, buckets = SECONDS) =>
      new Histogram({ name, help, buckets, registers });
    this.http = new Counter({
      name: 'gqa_http_requests_total',
      help: 'HTTP requests answered',
      labelNames: ['method', 'route', 'status'] as const,
      registers,
    });
    this.httpSeconds = new Histogram({
      name: 'gqa_http_request_duration_seconds',
      help: 'From a request to the end of its answer',
      labelNames: ['route'] as const,
      buckets: SECONDS,
      registers,
    });
    this.choices = new Counter({
      name: 'gqa_generations_total',
      help: 'Answers generated, by how they ended',
      labelNames: ['outcome'] as const,
      registers,
    });
    this.queueSeconds = seconds('gqa_queue_seconds', 'Time waited for a place');
    this.firstTokenSeconds = seconds('gqa_first_token_seconds', 'From request to first token');
    this.tokenSeconds = seconds(
      'gqa_token_seconds',
      'Time a token takes, of an answer on average',
      [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1],
    );
    this.addEngine(engine);
    collectDefaultMetrics({ register: this.registry });
  }

  answered(method: string, route: string, status: number, seconds: number): void {
    this.http.inc({ method, route, status });
    this.httpSeconds.observe({ route }, seconds);
  }

  finished({ finishReason, timings }: EngineResult): void {
    this.choices.inc({ outcome: finishReason });
    this.queueSeconds.observe(timings.queuedMs / 1000);
    this.firstTokenSeconds.observe(timings.firstTokenMs / 1000);
    if (timings.tokensPerSecond > 0) this.tokenSeconds.observe(1 / timings.tokensPerSecond);
  }

  ended(outcome: Outcome): void {
    this.choices.inc({ outcome });
  }

  private addEngine(engine: EngineLike): void {
    const { registry } = this;
    const gauge = (name: string, help: string, read: (stats: EngineStats) => number) =>
      new Gauge({
        name,
        help,
        registers: [registry],
        collect() {
          this.set(read(engine.stats()));
        },
      });
    // Counts that live in the engine: set, not incremented, and never going down.
    const counter = (name: string, help: string, read: (stats: EngineStats) => number) =>
      new Counter({
        name,
        help,
        registers: [registry],
        collect() {
          this.reset();
          this.inc(read(engine.stats()));
        },
      });
    gauge('gqa_up', '1 while the engine lives', ({ live }) => Number(live));
    gauge('gqa_running_sequences', 'Sequences that run', ({ running }) => running);
    gauge('gqa_waiting_requests', 'Requests that wait', ({ waiting }) => waiting);
    gauge('gqa_step_seconds', 'Time of a step, mean of the last', ({ stepMs }) => stepMs / 1000);
    gauge('gqa_cache_capacity_tokens', 'Token slots', ({ cache }) => cache.capacityTokens);
    gauge('gqa_cache_used_tokens', 'Token slots in use', ({ cache }) => cache.usedTokens);
    gauge('gqa_cache_shared_tokens', 'Of those, kept for reuse', ({ cache }) => cache.sharedTokens);
    counter('gqa_prompt_tokens_total', 'Tokens of prompts', (s) => s.promptTokens);
    counter('gqa_generated_tokens_total', 'Tokens generated', (s) => s.generatedTokens);
    counter('gqa_preemptions_total', 'Sequences put aside for others', (s) => s.preempted);
    counter('gqa_cache_hit_tokens_total', 'Prompt tokens found', ({ cache }) => cache.hitTokens);
    counter('gqa_cache_lookup_tokens_total', 'Looked up', ({ cache }) => cache.lookupTokens);
    counter('gqa_drafted_tokens_total', 'Tokens drafted', (s) => s.speculation.drafted);
    counter('gqa_accepted_tokens_total', 'Drafts accepted', (s) => s.speculation.accepted);
    gauge('gqa_store_connected', '1 while connected', ({ store }) =>
      Number(store?.connected ?? false),
    );
    counter('gqa_store_hits_total', 'Blocks found in the store', ({ store }) => store?.hits ?? 0);
    counter('gqa_store_misses_total', 'Blocks not found', ({ store }) => store?.misses ?? 0);
    counter('gqa_store_corrupt_total', 'Blocks refused', ({ store }) => store?.corrupt ?? 0);
    counter('gqa_store_dropped_total', 'Blocks not written', ({ store }) => store?.dropped ?? 0);
    counter('gqa_store_errors_total', 'Failures of the store', ({ store }) => store?.errors ?? 0);
  }
}
