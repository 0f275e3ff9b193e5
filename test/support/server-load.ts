/** Many requests against a server, some of them given up: what came back, and what is left behind. */
import { readdirSync, readFileSync } from 'node:fs';
import { eventsOf, get, post } from './http';
import { SeededRandom } from '../../lib/core/random';
import type { ServeProcess } from './serve-process';

export interface LoadOptions {
  requests: number;
  concurrency: number;
  seed: number;
}

export interface LoadReport {
  answered: number;
  cancelled: number;
  refused: number;
  seconds: number;
  tokensPerSecond: number;
  /** Requests whose answer was not the one that they get alone. */
  wrong: string[];
  /** What was more at the end than after the warm-up. */
  leaks: string[];
  /** MiB, after the first quarter and at the end. */
  rssMiB: [number, number];
  /** Open files and sockets of the process, likewise. */
  handles: [number, number];
}

interface Case {
  body: Record<string, unknown>;
  /** Given up after so many milliseconds. */
  giveUpMs: number | null;
}

const WORDS = 'one day a little girl named lily went to the park and saw big red ball'.split(' ');
/** Memory that a process may have more than after the warm-up: what V8 leaves uncollected moves by some. */
const RSS_SLACK_MIB = 48;

function makeCase(random: SeededRandom, index: number): Case {
  const pick = (most: number) => Math.floor(random.uniform() * most);
  // A quarter of the prompts begin alike, so that prefixes are shared while the load runs.
  const head =
    pick(4) === 0 ? 'Once upon a time there was a small cat who lived in a house . ' : '';
  const words = Array.from({ length: 1 + pick(60) }, () => WORDS[pick(WORDS.length)]);
  const temperature = pick(2) === 0 ? 0 : 1;
  return {
    body: {
      prompt: `${head.repeat(1 + pick(4))}${words.join(' ')}`,
      max_tokens: 1 + pick(40),
      temperature,
      seed: index,
      stream: pick(2) === 0,
    },
    giveUpMs: pick(4) === 0 ? pick(120) : null,
  };
}

function textOf(body: string | { choices: { text: string }[] }): string {
  if (typeof body !== 'string') return body.choices[0].text;
  const events = eventsOf(body);
  if (events.pop() !== '[DONE]') throw new Error(`a stream without its end: ${body.slice(-200)}`);
  return events.map(({ choices }) => choices[0].text).join('');
}

/** Of the server's process, by /proc. */
function footprint({ process }: ServeProcess): { rssMiB: number; handles: number } {
  const status = readFileSync(`/proc/${process.pid}/status`, 'utf8');
  const kib = Number(/^VmRSS:\s+(\d+)/m.exec(status)![1]);
  const handles = readdirSync(`/proc/${process.pid}/fd`).length;
  return { rssMiB: Math.round(kib / 1024), handles };
}

class Load {
  readonly report: LoadReport = {
    ...{ answered: 0, cancelled: 0, refused: 0, seconds: 0, tokensPerSecond: 0 },
    ...{ wrong: [], leaks: [], rssMiB: [0, 0], handles: [0, 0] },
  };
  readonly answers = new Map<number, string>();
  private readonly url: string;

  constructor(
    private readonly server: ServeProcess,
    private readonly model: string,
  ) {
    this.url = `${server.url}/v1/completions`;
  }

  async send({ body, giveUpMs }: Case, index: number): Promise<void> {
    const controller = new AbortController();
    const timer = giveUpMs === null ? null : setTimeout(() => controller.abort(), giveUpMs);
    try {
      const response = await fetch(this.url, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ model: this.model, ...body }),
        signal: controller.signal,
      });
      const text = await response.text();
      if (response.status === 429) {
        this.report.refused++;
      } else if (response.status !== 200) {
        this.report.wrong.push(`${index}: ${response.status} ${text}`);
      } else {
        const answer: unknown = body.stream === true ? text : JSON.parse(text);
        this.answers.set(index, textOf(answer as string));
        this.report.answered++;
      }
    } catch (error) {
      if (!controller.signal.aborted) throw error;
      this.report.cancelled++;
    } finally {
      if (timer !== null) clearTimeout(timer);
    }
  }

  /** Sends cases from `from` on, `concurrency` at a time. */
  async sendAll(cases: readonly Case[], from: number, concurrency: number): Promise<void> {
    let next = 0;
    const lane = async () => {
      while (next < cases.length) {
        const at = next++;
        await this.send(cases[at], from + at);
      }
    };
    await Promise.all(Array.from({ length: concurrency }, lane));
  }

  /** Every answer again, each alone. */
  async compare(cases: readonly Case[]): Promise<void> {
    for (const [index, text] of this.answers) {
      const body = { model: this.model, ...cases[index].body, stream: false };
      const alone = textOf((await post(this.url, body)).body);
      if (alone !== text) this.report.wrong.push(`${index}: '${text}', alone '${alone}'`);
    }
  }

  /** What the server holds once nothing is under way. */
  async settled(): Promise<{ rssMiB: number; handles: number }> {
    const end = Date.now() + 10_000;
    for (;;) {
      const { engine } = (await get(`${this.server.url}/stats`)).body;
      if (engine.running + engine.waiting === 0) break;
      if (Date.now() > end) {
        this.report.leaks.push(`${engine.running} running, ${engine.waiting} waiting`);
        break;
      }
    }
    // Sockets of clients that have gone are closed in their own time.
    await new Promise((resolve) => setTimeout(resolve, 200));
    return footprint(this.server);
  }
}

export async function runLoad(server: ServeProcess, options: LoadOptions): Promise<LoadReport> {
  const random = new SeededRandom(options.seed);
  const cases = Array.from({ length: options.requests }, (_, index) => makeCase(random, index));
  const { data } = (await get(`${server.url}/v1/models`)).body;
  const load = new Load(server, data[0].id);
  const { report } = load;
  const warmUp = Math.ceil(cases.length / 4);
  await load.sendAll(cases.slice(0, warmUp), 0, options.concurrency);
  const before = await load.settled();
  const began = performance.now();
  const statsBefore = (await get(`${server.url}/stats`)).body.engine;
  await load.sendAll(cases.slice(warmUp), warmUp, options.concurrency);
  report.seconds = Math.round((performance.now() - began) / 100) / 10;
  const after = await load.settled();
  const stats = (await get(`${server.url}/stats`)).body.engine;
  const generated = stats.generatedTokens - statsBefore.generatedTokens;
  report.tokensPerSecond = Math.round(generated / report.seconds);
  report.rssMiB = [before.rssMiB, after.rssMiB];
  report.handles = [before.handles, after.handles];
  if (after.rssMiB > before.rssMiB + RSS_SLACK_MIB) report.leaks.push('memory');
  // Connections that clients keep alive.
  if (after.handles > before.handles + options.concurrency) report.leaks.push('handles');
  await load.compare(cases);
  return report;
}
