/**
 * The chat page in a real browser. With GQA_PAGE_MODEL (a chat model) and GQA_SCREENSHOT, the last test asks that model and
 * takes the picture in docs.
 */
import type { Browser, Page } from 'playwright-core';

import { Engine } from '../../lib/engine';
import { createServer, type GqaServer } from '../../lib/server';
import { browserCommand, launchBrowser } from '../support/browser';
import { FakeEngine } from '../support/fake-engine';
import { until } from '../support/http';

const { GQA_PAGE_MODEL: model, GQA_SCREENSHOT: screenshot } = process.env;
if (browserCommand === null) console.log('chat page: no Chromium (Debian: chromium), skipped');
if (model === undefined) console.log('chat page: GQA_PAGE_MODEL names no model to ask, skipped');
const describeInBrowser = browserCommand === null ? describe.skip : describe;

describeInBrowser('the chat page', () => {
  let browser: Browser;
  let page: Page;
  let engine: FakeEngine;
  let server: GqaServer;
  /** What the page asked of anybody but its server, and what it complained of. */
  let trouble: string[];

  beforeAll(async () => {
    browser = await launchBrowser();
  });
  afterAll(() => browser.close());

  async function open(url: string): Promise<void> {
    page = await browser.newPage({ viewport: { width: 960, height: 720 } });
    trouble = [];
    page.on('pageerror', (error) => trouble.push(error.message));
    page.on('console', (message) => {
      if (message.type() === 'error') trouble.push(message.text());
    });
    page.on('request', (request) => {
      if (!request.url().startsWith(url)) trouble.push(request.url());
    });
    await page.goto(url);
  }

  async function serve(options: { chat?: boolean; apiKeys?: string[] } = {}): Promise<string> {
    engine = new FakeEngine(options);
    server = await createServer(engine, { apiKeys: options.apiKeys, logLevel: 'silent' });
    return server.listen({ host: '127.0.0.1', port: 0 });
  }
  afterEach(async () => {
    await page.close();
    await server.close();
  });

  const answers = () => page.locator('.message.assistant .text').allTextContents();
  const notes = () => page.locator('.note').allTextContents();

  async function ask(words: string): Promise<void> {
    await page.getByLabel('Message').fill(words);
    await page.keyboard.press('Enter');
  }

  async function shortAnswers(tokens: number): Promise<void> {
    await page.getByRole('button', { name: 'Settings' }).click();
    await page.getByLabel('Longest answer').fill(String(tokens));
    await page.getByRole('button', { name: 'Done' }).click();
  }

  test('shows text as it comes, the speed and the fill of the cache', async () => {
    await open(await serve());
    await shortAnswers(6);
    let release: () => void = () => undefined;
    engine.gate = new Promise((resolve) => (release = resolve));
    await ask('One day');
    await page.locator('.message.running').waitFor();
    await until(() => engine.requests.length === 1);
    expect(await answers()).toEqual(['']);
    expect(await page.getByText('Ask something').isVisible()).toBe(false);
    const ids = engine.requests[0].prompt;
    expect(engine.tokenizer.decode(ids, { skipSpecialTokens: true })).toContain('One day');
    release();
    await page.getByText('Cut off').waitFor();
    const [said] = await answers();
    expect(said.length).toBeGreaterThan(0);
    expect(await page.locator('#speed').textContent()).toMatch(/^([\d,]+ tokens\/s, )?6 tokens, /);
    expect(await page.locator('#cache-text').textContent()).toBe('0 % of 512 tokens');

    // The next question comes with what was said before.
    await ask('And then?');
    await until(() => engine.requests.length === 2);
    const next = engine.tokenizer.decode(engine.requests[1].prompt, { skipSpecialTokens: true });
    expect(next).toContain(said.trim().slice(0, 8));
    expect(trouble).toEqual([]);
  });

  test('stops, by button and by key, and keeps what had come', async () => {
    await open(await serve());
    engine.gate = new Promise(() => undefined);
    await ask('One day');
    await until(() => engine.requests.length === 1);
    await page.getByRole('button', { name: 'Stop' }).click();
    await page.getByText('Stopped.').waitFor();
    await ask('Another day');
    await until(() => engine.requests.length === 2);
    await page.keyboard.press('Escape');
    await page.getByText('Stopped.').nth(1).waitFor();
    await until(() => engine.aborted === 2);
    expect(await page.getByRole('button', { name: 'Send' }).isVisible()).toBe(true);
    await page.getByRole('button', { name: 'New chat' }).waitFor();
    expect(trouble).toEqual([]);
  });

  test('shows what the server says, and asks for the key it wants', async () => {
    await open(await serve({ apiKeys: ['secret'] }));
    await ask('One day');
    await page.getByText('You did not provide an API key').first().waitFor();
    await page.getByRole('button', { name: 'Settings' }).click();
    await page.getByLabel('API key').fill('secret');
    await page.getByLabel('Longest answer').fill('3');
    await page.getByRole('button', { name: 'Done' }).click();
    await page.locator('#model', { hasText: 'fake' }).waitFor();
    engine.failure = { at: 1, error: new Error('boom') };
    await ask('One day');
    await page.locator('.note.error').nth(1).waitFor();
    expect((await notes())[1]).not.toContain('API key');
  });

  test('a model without a chat template goes on from the text', async () => {
    await open(await serve({ chat: false }));
    await page.getByText('it goes on from where your text ends').waitFor();
    await shortAnswers(3);
    await ask('One day');
    await page.getByText('Cut off').waitFor();
    const { prompt } = engine.requests[0];
    expect(engine.tokenizer.decode(prompt, { skipSpecialTokens: true })).toBe('One day');
    expect(trouble).toEqual([]);
  });

  (model === undefined ? test.skip : test)('asks a real model', async () => {
    const real = await Engine.start(model!, { name: 'SmolLM2-135M-Instruct', contextLength: 2048 });
    server = await createServer(real, { logLevel: 'silent' });
    try {
      await open(await server.listen({ host: '127.0.0.1', port: 0 }));
      await shortAnswers(240);
      await page.getByRole('button', { name: 'Settings' }).click();
      await page.getByLabel('Temperature').fill('0');
      await page.getByRole('button', { name: 'Done' }).click();
      await ask('Why is the sky blue?');
      await page.getByText(/\d+ tokens, first after/).waitFor();
      await page.getByRole('button', { name: 'Send' }).waitFor({ timeout: 60_000 });
      await page.waitForTimeout(1100);
      expect((await answers())[0].length).toBeGreaterThan(100);
      if (screenshot !== undefined) await page.screenshot({ path: screenshot });
    } finally {
      await server.close();
      await real.dispose();
      server = await createServer(new FakeEngine(), { logLevel: 'silent' });
    }
  });
});
