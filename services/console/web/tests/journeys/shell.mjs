// Journeys of the shell: login, keys, palette, themes, what a first load costs.
import assert from 'node:assert/strict';
import { axe, dismiss, login, LOGIN_MS, settled, visit } from './browser.mjs';

const KIB = 1024;
const FIRST_LOAD_MAX = 120 * KIB;
const REQUESTS_MAX = 15;

export const journeys = [
  {
    name: 'a wrong password is refused, the right one leads to the overview',
    async walk(given) {
      const { context, page, faults } = await visit(given.browser, given);
      await page.goto('/jobs?state=failed');
      await page.getByLabel('User').fill(given.user);
      await page.getByLabel('Password', { exact: true }).fill('not the password');
      await page.getByRole('button', { name: 'Log in' }).click();
      await page.getByRole('alert').filter({ hasText: /.{8,}/ }).waitFor({ timeout: LOGIN_MS });
      assert.deepEqual(await axe(page), []);
      await page.getByLabel('Password', { exact: true }).fill(given.password);
      await page.getByRole('button', { name: 'Log in' }).click();
      // The address that was asked for is what opens.
      await page.getByRole('heading', { level: 1, name: 'Jobs' }).waitFor({ timeout: LOGIN_MS });
      assert.equal(new URL(page.url()).search, '?state=failed');
      await page.reload();
      await page.getByRole('heading', { level: 1, name: 'Jobs' }).waitFor();
      assert.deepEqual(faults, []);
      await context.close();
    },
  },
  {
    name: 'a first load is small',
    async walk(given) {
      const { context, page } = await visit(given.browser, given);
      await login(page, given.user, given.password);
      const debug = await context.newCDPSession(page);
      await debug.send('Network.enable');
      await debug.send('Network.setCacheDisabled', { cacheDisabled: true });
      let bytes = 0;
      let files = 0;
      const own = new Set();
      debug.on('Network.requestWillBeSent', (event) => {
        if (!/\/(api|auth)\//.test(new URL(event.request.url).pathname)) own.add(event.requestId);
      });
      debug.on('Network.loadingFinished', (event) => {
        if (!own.has(event.requestId)) return;
        files += 1;
        bytes += event.encodedDataLength;
      });
      await page.goto('/jobs');
      await page.getByRole('table', { name: 'Jobs' }).waitFor();
      await settled(page);
      const painted = await page.evaluate(
        () =>
          new Promise((resolve) => {
            const seen = (entries) => entries.filter((entry) => entry.name === 'first-contentful-paint').forEach((entry) => resolve(entry.startTime));
            new PerformanceObserver((list) => seen(list.getEntries())).observe({ type: 'paint', buffered: true });
          }),
      );
      console.log(`     ${(bytes / KIB).toFixed(1)} KiB in ${files} files, first contentful paint after ${Math.round(painted)} ms`);
      assert.ok(files > 0 && files <= REQUESTS_MAX, `${files} files`);
      assert.ok(bytes <= FIRST_LOAD_MAX, `${bytes} bytes`);
      await context.close();
    },
  },
  {
    name: 'everything is reached by keys',
    async walk(given) {
      const { context, page, faults } = await visit(given.browser, given);
      await login(page, given.user, given.password);
      await page.keyboard.press('g');
      await page.keyboard.press('j');
      await page.getByRole('heading', { level: 1, name: 'Jobs' }).waitFor();
      await page.keyboard.press('Control+k');
      await page.getByRole('dialog').getByRole('combobox').fill('dead let');
      await page.keyboard.press('Enter');
      await page.getByRole('heading', { level: 1, name: 'Dead letters' }).waitFor();
      await page.keyboard.press('?');
      await page.getByRole('dialog', { name: 'Keys' }).waitFor();
      assert.deepEqual(await axe(page), []);
      await dismiss(page);
      await page.keyboard.press('Control+k');
      await page.getByRole('dialog').getByRole('combobox').fill('theme: dark');
      await page.keyboard.press('Enter');
      assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), 'dark');
      await page.reload();
      await page.getByRole('heading', { level: 1, name: 'Dead letters' }).waitFor();
      assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), 'dark');
      // Letters can be switched off.
      await page.keyboard.press('?');
      await page.getByRole('checkbox', { name: /one letter/ }).uncheck();
      await dismiss(page);
      await page.keyboard.press('g');
      await page.keyboard.press('o');
      assert.equal(await page.getByRole('heading', { level: 1 }).textContent(), 'Dead letters');
      assert.deepEqual(faults, []);
      await context.close();
    },
  },
];
