/**
 * Three replicas behind nginx that share prefixes through Redis or Valkey: conversations of several turns go on, and are
 * answered as by one server alone, while a replica and then the store are killed.
 */
import { Engine } from '../../lib';
import { Balancer, hasNginx } from '../support/balancer';
import { get, post, type Answer } from '../support/http';
import { readAll, request } from '../support/engine';
import { embeddedModel, skipped } from '../support/package';
import { Random } from '../support/random';
import { RedisServer, serverCommand } from '../support/redis';
import { ServeProcess } from '../support/serve-process';

const CONVERSATIONS = 200;
const TURNS = 3;
/** Conversations of one script ask the same, each with a cache to find it in. */
const SCRIPTS = 12;
const CLIENTS = 12;
const REPLICAS = 3;
const ANSWER_TOKENS = 4;
const CONTEXT = 512;

/** What every prompt of a script begins with, in tokens: some blocks; and what its turns add. */
function script(seed: number): { begin: number[]; turns: number[][] } {
  const random = new Random(seed);
  const ids = (count: number) => Array.from({ length: count }, () => random.int(3, 2000));
  return { begin: ids(140 + 20 * (seed % 4)), turns: Array.from({ length: TURNS }, () => ids(24)) };
}

const scripts = Array.from({ length: SCRIPTS }, (_, i) => script(i));

/** The answers of each script's turns, one request at a time; and each turn's prompt. */
async function single(): Promise<{ prompt: number[]; answer: string }[][]> {
  const engine = await Engine.start(embeddedModel, { speculation: false });
  const all = [];
  for (const { begin, turns } of scripts) {
    let prompt = begin;
    const steps = [];
    for (const turn of turns) {
      prompt = [...prompt, ...turn];
      const run = engine.submit(request({ prompt, maxTokens: ANSWER_TOKENS, ignoreEos: true }));
      const { ids, result } = await readAll(run);
      steps.push({ prompt, answer: result.text });
      prompt = [...prompt, ...ids];
    }
    all.push(steps);
  }
  await engine.dispose();
  return all;
}

interface Failure {
  replica: string;
  startedAt: number;
}

/** Clients with conversations of their own, and what became of their requests. */
class Load {
  readonly failures: Failure[] = [];
  wrong = 0;
  answered = 0;
  cachedTokens = 0;
  private next = 0;
  private readonly marks: { at: number; action: () => void }[] = [];

  constructor(
    private readonly url: string,
    private readonly expected: readonly { prompt: number[]; answer: string }[][],
  ) {}

  /** Calls the action when so many requests have been answered. */
  after(answered: number, action: () => void): void {
    this.marks.push({ at: answered, action });
  }

  async run(): Promise<void> {
    await Promise.all(Array.from({ length: CLIENTS }, () => this.client()));
  }

  private async client(): Promise<void> {
    while (this.next < CONVERSATIONS) {
      const conversation = this.next++;
      for (const { prompt, answer } of this.expected[conversation % SCRIPTS]) {
        const text = await this.ask(conversation, prompt);
        if (text !== answer) this.wrong++;
        this.answered++;
        for (const mark of this.marks) if (mark.at === this.answered) mark.action();
      }
    }
  }

  /** Asks until it is answered. */
  private async ask(conversation: number, prompt: number[]): Promise<string> {
    for (;;) {
      const startedAt = performance.now();
      const { status, headers, body } = await this.post(conversation, prompt);
      if (status === 200) {
        this.cachedTokens += body.usage.prompt_tokens_details.cached_tokens;
        return body.choices[0].text;
      }
      expect([status, body.error.code]).toEqual([502, 'replica_unavailable']);
      const replica = headers.get('x-gqa-replica') ?? '';
      this.failures.push({ replica: replica.split(', ').at(-1)!, startedAt });
    }
  }

  /** Every other conversation says where it belongs. */
  private post(conversation: number, prompt: number[]): Promise<Answer> {
    const headers: Record<string, string> =
      conversation % 2 === 0 ? { 'x-gqa-prefix': `conversation ${conversation}` } : {};
    const body = { model: 'stories', prompt, max_tokens: ANSWER_TOKENS, temperature: 0 };
    return post(`${this.url}/v1/completions`, { ...body, ignore_eos: true }, headers);
  }
}

function startReplica(storeUrl: string): Promise<ServeProcess> {
  const options = ['--store', storeUrl, '--context-length', String(CONTEXT)];
  return ServeProcess.start(['--log-level', 'silent', ...options]);
}

/** A figure of Prometheus' text. */
function figure(text: string, name: string): number {
  const line = text.split('\n').find((each) => each.startsWith(`${name} `));
  if (line === undefined) throw new Error(`no ${name}`);
  return Number(line.split(' ')[1]);
}

const why =
  serverCommand === null
    ? 'neither redis-server nor valkey-server is installed'
    : hasNginx
      ? null
      : 'nginx is not installed';
const withAll = why === null ? test : skipped(why);

withAll(
  'a replica and then the store are killed under load: every answer is right',
  async () => {
    const store = new RedisServer();
    const balancer = new Balancer();
    const replicas: ServeProcess[] = [];
    try {
      await store.start();
      const starting = Array.from({ length: REPLICAS }, async () => {
        replicas.push(await startReplica(store.url));
      });
      const [expected] = await Promise.all([single(), ...starting]);
      await balancer.start(replicas.map(({ url }) => new URL(url).host));
      const load = new Load(balancer.url, expected);
      const [victim, ...others] = replicas;
      // The kernel ends a process, and what it has in hand, some time after the signal.
      let goneAt = Infinity;
      load.after(200, () => {
        void victim.end('SIGKILL').then(() => {
          goneAt = performance.now();
        });
      });
      let failuresBefore = 0;
      load.after(400, () => {
        failuresBefore = load.failures.length;
        store.kill();
      });
      await load.run();
      expect(load.answered).toBe(CONVERSATIONS * TURNS);
      expect(load.wrong).toBe(0);
      // Only what the dead replica had in hand, and each of these once.
      expect(load.failures.length).toBeLessThanOrEqual(CLIENTS);
      for (const { replica, startedAt } of load.failures) {
        expect(replica).toBe(new URL(victim.url).host);
        expect(startedAt).toBeLessThan(goneAt);
      }
      expect(load.failures).toHaveLength(failuresBefore);
      // Each prefix was computed by one replica, and the others found it.
      const figures = await Promise.all(others.map(({ url }) => get(`${url}/metrics`)));
      const sum = (name: string): number =>
        figures.reduce((total, { body }) => total + figure(body, name), 0);
      expect(sum('gqa_store_hits_total')).toBeGreaterThan(0);
      expect(sum('gqa_store_connected')).toBe(0);
      expect(load.cachedTokens).toBeGreaterThan(0);
    } finally {
      await balancer.stop();
      await Promise.all(replicas.map((replica) => replica.end('SIGKILL')));
      await store.stop();
    }
  },
  60_000,
);
