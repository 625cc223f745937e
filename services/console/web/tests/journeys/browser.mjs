// A browser for the journeys: Debian's Chromium through playwright-core, which watches what must never happen on any page.
import { mkdtemp, mkdir, readFile, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { chromium } from 'playwright-core';

const axeSource = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** A login on a busy machine, by a build that is not optimised. */
export const LOGIN_MS = 120_000;

/** Starts Chromium on a profile of its own. */
export async function open({ executable = process.env.CHROMIUM ?? 'chromium' } = {}) {
  const profile = await mkdtemp(path.join(tmpdir(), 'console-journey-'));
  const browser = await chromium.launch({
    executablePath: await onPath(executable),
    // The map is drawn without a graphics card.
    args: ['--no-sandbox', '--use-angle=swiftshader', '--enable-unsafe-swiftshader', '--disable-dev-shm-usage', '--no-first-run'],
  });
  return {
    browser,
    async close() {
      await browser.close();
      await rm(profile, { recursive: true, force: true });
    },
  };
}

async function onPath(name) {
  if (name.includes('/')) return name;
  const { access, constants } = await import('node:fs/promises');
  for (const folder of (process.env.PATH ?? '').split(path.delimiter)) {
    const file = path.join(folder, name);
    if (await access(file, constants.X_OK).then(() => true, () => false)) return file;
  }
  throw new Error(`there is no ${name} on PATH`);
}

/** A window; what the page's policy forbids, errors of scripts, and addresses elsewhere are written to `faults`. */
export async function visit(browser, { url, width = 1440, height = 900, scheme = 'light', motion = 'reduce', ...rest }) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme, reducedMotion: motion, baseURL: url, permissions: ['clipboard-read', 'clipboard-write'], ...rest });
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  const faults = [];
  await page.addInitScript(() => {
    addEventListener('securitypolicyviolation', (event) => console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
  });
  page.on('pageerror', (error) => faults.push(`error: ${error.message}`));
  page.on('console', (message) => {
    if (message.type() !== 'error' && message.type() !== 'warning') return;
    const text = message.text();
    // Answers that refuse are part of some journeys; the journey itself judges them.
    if (/Failed to load resource/.test(text)) return;
    faults.push(`${message.type()}: ${text}`);
  });
  const origin = new URL(url).origin;
  page.on('request', (request) => {
    if (!request.url().startsWith(origin) && !/^(data|blob|about):/.test(request.url())) faults.push(`elsewhere: ${request.url()}`);
  });
  return { context, page, faults };
}

/** Cookies of the first login: checking a password is slow on purpose, and no journey but the first is about it. */
const sessions = new Map();

export async function login(page, user, password) {
  const kept = sessions.get(user);
  if (kept) {
    await page.context().addCookies(kept);
    await page.goto('/');
    await page.getByRole('heading', { level: 1, name: 'Overview' }).waitFor();
    return;
  }
  await page.goto('/');
  await page.getByLabel('User').fill(user);
  await page.getByLabel('Password', { exact: true }).fill(password);
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByRole('heading', { level: 1, name: 'Overview' }).waitFor({ timeout: LOGIN_MS });
  sessions.set(user, await page.context().cookies());
}

/** What axe finds of WCAG 2.2 AA and good practice. The page's policy forbids its script, so it comes through the debugger. */
export async function axe(page) {
  await page.evaluate(axeSource);
  return page.evaluate(async () => {
    const found = await globalThis.axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] });
    return found.violations.flatMap((one) => one.nodes.map((node) => `${one.id}: ${node.target.join(' ')} ${node.failureSummary?.split('\n').slice(1).join('; ')}`));
  });
}

/** Closes what is open over the page; a dialog closes a moment after its key. */
export async function dismiss(page) {
  await page.keyboard.press('Escape');
  await page.waitForFunction(() => !document.querySelector('dialog, .panel'));
}

/** Nothing is under way: the page has what it asked for. */
export async function settled(page) {
  await page.waitForFunction(() => !document.querySelector('[aria-label="Loading"]'));
}

/** Reloads the page until something is so: what a page shows is asked again every few seconds. */
export async function until(page, is, { tries = 60, every = 1_000 } = {}) {
  for (let n = 0; n < tries; n += 1) {
    if (await is()) return;
    await page.waitForTimeout(every);
    if (n % 5 === 4) await page.reload();
  }
  throw new Error(`not so after ${tries} looks: ${is}`);
}

export async function shot(page, folder, name) {
  await mkdir(folder, { recursive: true });
  await page.screenshot({ path: path.join(folder, `${name}.png`), fullPage: false });
}
