/** A headless Chromium of this machine's, for tests of pages. */
import { spawnSync } from 'node:child_process';
import { chromium, type Browser } from 'playwright-core';

/** The command of an installed browser; null where there is none. */
export const browserCommand =
  ['chromium-headless-shell', 'chromium', 'google-chrome'].find(
    (command) => spawnSync(command, ['--version']).status === 0,
  ) ?? null;

const FLAGS = [
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

export async function launchBrowser(): Promise<Browser> {
  const which = spawnSync('which', [browserCommand!], { encoding: 'utf8' });
  return chromium.launch({
    executablePath: which.stdout.trim(),
    args: FLAGS,
    // Containers and root have no sandbox to give.
    chromiumSandbox: false,
  });
}
