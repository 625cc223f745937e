// Journeys of schedules, dead letters, queues and workers.
import assert from 'node:assert/strict';
import { axe, login, settled, shot, until, visit } from './browser.mjs';

/** Submits through the page's own session, as the form does. */
async function submit(page, body) {
  return page.evaluate(async (wanted) => {
    const { csrf } = await (await fetch('/auth/session')).json();
    const answer = await fetch('/api/orchestrator/v1/jobs', { method: 'POST', headers: { 'content-type': 'application/json', 'x-af-csrf': csrf }, body: JSON.stringify(wanted) });
    if (!answer.ok) throw new Error(await answer.text());
    return answer.json();
  }, body);
}

export const journeys = [
  {
    name: 'a schedule is created, shows its next ten runs in a zone, runs, is paused, resumed, deleted and kept by Undo',
    async walk(given) {
      const { context, page, faults } = await visit(given.browser, given);
      await login(page, given.user, given.password);
      const name = `nightly-${Date.now()}`;
      await page.goto('/schedules/new');
      await page.getByLabel('Name').fill(name);
      await page.getByLabel('Cron').fill('30 2 * * *');
      await page.getByText('every day at 02:30').waitFor();
      await page.getByLabel('Time zone').fill('Europe/Vienna');
      await page.getByLabel('Tool').fill('echo');
      await page.getByRole('button', { name: 'Create' }).click();
      await page.getByRole('heading', { level: 1, name }).waitFor();
      await page.getByText('Next ten runs').waitFor();
      await page.locator('ol.runs li').nth(9).waitFor();
      assert.equal(await page.locator('ol.runs li').count(), 10);
      for (const text of await page.locator('ol.runs li').allTextContents()) assert.match(text, / 02:30:00/);
      await page.getByLabel('Zone of the times').selectOption('UTC');
      assert.match((await page.locator('ol.runs li').first().textContent()) ?? '', / 0[01]:30:00/);
      assert.equal(new URL(page.url()).searchParams.get('zone'), 'UTC');
      await settled(page);
      assert.deepEqual(await axe(page), []);
      await shot(page, given.out, 'schedule');
      await page.getByRole('button', { name: 'Run now' }).click();
      await page.getByText('It runs').waitFor();
      await page.keyboard.press('p');
      await page.locator('header .chip', { hasText: 'paused' }).waitFor();
      await page.getByText('is paused').locator('..').getByRole('button', { name: 'Undo' }).click();
      await page.locator('header .chip', { hasText: 'active' }).waitFor();
      await page.getByRole('button', { name: 'Delete' }).click();
      await page.getByText('is deleted').locator('..').getByRole('button', { name: 'Undo' }).click();
      await page.getByRole('heading', { level: 1, name }).waitFor();
      assert.deepEqual(faults, []);
      await context.close();
    },
  },
  {
    name: 'dead letters are grouped by their cause and redriven at a rate',
    async walk(given) {
      const { context, page, faults } = await visit(given.browser, given);
      await login(page, given.user, given.password);
      for (let n = 0; n < 3; n += 1) await submit(page, { tool: 'fail', args: {}, max_attempts: 1, labels: { n: String(n) } });
      await page.goto('/dead-letters');
      const group = page.getByRole('row').filter({ hasText: 'failed as asked' });
      // All three died: of another cause there may be more.
      await until(page, async () => Number(await group.locator('strong').first().textContent({ timeout: 500 }).catch(() => 0)) >= 3);
      await group.getByRole('link').click();
      await page.getByRole('heading', { level: 1, name: 'Dead letters of one cause' }).waitFor();
      assert.ok(new URL(page.url()).searchParams.get('group'));
      await page.getByRole('button', { name: /Redrive these/ }).click();
      await page.getByLabel('Jobs per second').fill('1000');
      await page.getByRole('button', { name: /^Redrive \d+ job/ }).click();
      await page.getByText(/jobs? put back/).waitFor();
      assert.deepEqual(faults, []);
      await context.close();
    },
  },
  {
    name: 'a queue is paused, says so, and the pause is undone',
    async walk(given) {
      const { context, page, faults } = await visit(given.browser, given);
      await login(page, given.user, given.password);
      const queue = `valve-${Date.now()}`;
      await submit(page, { tool: 'echo', args: {}, queue });
      await page.goto(`/queues?q=${queue}`);
      const row = page.getByRole('row').filter({ hasText: queue });
      await row.getByRole('button', { name: 'Pause' }).click();
      await row.getByText('paused', { exact: true }).waitFor();
      await row.getByRole('button', { name: 'Resume' }).waitFor();
      await page.getByText('is paused').locator('..').getByRole('button', { name: 'Undo' }).click();
      await row.getByRole('button', { name: 'Pause' }).waitFor();
      await settled(page);
      assert.deepEqual(await axe(page), []);
      assert.deepEqual(faults, []);
      await context.close();
    },
  },
  {
    slow: true,
    name: 'a page is usable on a processor four times slower',
    async walk(given) {
      const { context, page } = await visit(given.browser, given);
      await login(page, given.user, given.password);
      const debug = await context.newCDPSession(page);
      for (const rate of [1, 4]) {
        await debug.send('Emulation.setCPUThrottlingRate', { rate });
        const [painted, usable] = [[], []];
        for (let n = 0; n < 5; n += 1) {
          await page.goto('/jobs', { waitUntil: 'commit' });
          await page.getByRole('table', { name: 'Jobs' }).waitFor();
          usable.push(Math.round(await page.evaluate(() => performance.now())));
          await page.waitForFunction(() => performance.getEntriesByName('first-contentful-paint').length > 0);
          painted.push(await page.evaluate(() => Math.round(performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? Number.NaN)));
        }
        assert.ok(painted.every((one) => one > 0), `it was painted: ${painted}`);
        // Said and not judged: other programs run on this machine too. Goals: painted after 300 ms at full speed, usable after a second.
        console.log(`     at a ${rate === 1 ? 'full' : 'quarter of the'} speed: painted after ${painted.join(', ')} ms, usable after ${usable.join(', ')} ms`);
      }
      await context.close();
    },
  },
];
