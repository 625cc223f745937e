// Journeys of people and their sessions: what a viewer may do, a session that is renewed, a site that is cut off, and a user who is
// locked out, last: then no other login works for a while.
import assert from 'node:assert/strict';
import { axe, login, LOGIN_MS, settled, visit } from './browser.mjs';

async function into(given, address) {
  const opened = await visit(given.browser, given);
  await login(opened.page, given.user, given.password);
  await opened.page.goto(address);
  return opened;
}

/** Adds a user in the page; the path of the one-time link. */
async function added(page, name) {
  await page.getByRole('table', { name: 'Users' }).getByRole('row').nth(1).waitFor();
  await page.keyboard.press('n');
  await page.getByRole('dialog').getByLabel('Name').fill(name);
  await page.getByRole('dialog').getByLabel('Role').selectOption('viewer');
  await page.getByRole('dialog').getByRole('button', { name: 'Add', exact: true }).click();
  const link = await page.getByRole('dialog', { name: `One-time link of ${name}` }).locator('code').textContent();
  await page.keyboard.press('Escape');
  return new URL(link.trim(), page.url()).pathname;
}

export const journeys = [
  {
    name: 'a viewer sees everything but secrets, and is offered nothing that a viewer may not do',
    async walk(given) {
      const { context, page, faults } = await into(given, '/users');
      const name = `viewer-${Date.now()}`;
      const link = await added(page, name);
      const other = await visit(given.browser, given);
      await other.page.goto(link);
      await other.page.getByRole('button', { name: 'Log in' }).click();
      await other.page.getByRole('heading', { level: 1, name: 'Overview' }).waitFor({ timeout: LOGIN_MS });
      await other.page.goto('/jobs');
      await other.page.getByRole('table', { name: 'Jobs' }).getByRole('link').first().waitFor();
      assert.equal(await other.page.getByRole('link', { name: 'Submit' }).count(), 0);
      // It says who may.
      await other.page.getByText('With the role viewer you look on: to submit takes submitter; to cancel or retry many takes operator.').waitFor();
      assert.equal(await other.page.getByRole('navigation', { name: 'Pages' }).getByRole('link', { name: /Users|Audit log/ }).count(), 0);
      await other.page.getByRole('table', { name: 'Jobs' }).getByRole('link').first().click();
      await other.page.waitForURL(/\/jobs\/[0-9a-f]{8}-/);
      await settled(other.page);
      for (const act of ['Cancel', 'Retry', 'Again…']) assert.equal(await other.page.getByRole('button', { name: act, exact: true }).count(), 0, act);
      await other.page.goto('/queues');
      await other.page.getByRole('table', { name: 'Queues' }).getByRole('row').nth(1).waitFor();
      assert.equal(await other.page.getByRole('button', { name: 'Pause', exact: true }).count(), 0);
      // By its address the page is refused, with the reason.
      await other.page.goto('/users');
      await other.page.getByText(/admin/).first().waitFor();
      assert.equal(await other.page.getByRole('table', { name: 'Users' }).count(), 0);
      assert.deepEqual(await axe(other.page), []);
      assert.deepEqual([...faults, ...other.faults], []);
      await other.context.close();
      await page.getByRole('button', { name: `Actions for ${name}` }).click();
      await page.getByRole('button', { name: 'Remove…' }).click();
      await page.getByRole('button', { name: 'Remove', exact: true }).click();
      await page.getByRole('row', { name: new RegExp(name) }).waitFor({ state: 'detached' });
      await context.close();
    },
  },
  {
    name: 'a session that has ended is renewed without a word, and without cookies there is the login',
    async walk(given) {
      const { context, page, faults } = await visit(given.browser, given);
      await page.goto('/jobs');
      await page.getByLabel('User').fill(given.user);
      await page.getByLabel('Password', { exact: true }).fill(given.password);
      await page.getByRole('button', { name: 'Log in' }).click();
      await page.getByRole('table', { name: 'Jobs' }).waitFor({ timeout: LOGIN_MS });
      const cookie = async (name) => (await context.cookies()).find((one) => one.name.endsWith(name));
      const first = (await cookie('af_refresh')).value;
      await context.clearCookies({ name: (await cookie('af_access')).name });
      await page.keyboard.press('g');
      await page.keyboard.press('q');
      await page.getByRole('table', { name: 'Queues' }).waitFor();
      assert.ok(await cookie('af_access'), 'it was renewed');
      assert.notEqual((await cookie('af_refresh')).value, first, 'and what renews it is another');
      await context.clearCookies();
      await page.getByRole('link', { name: 'Jobs' }).first().click();
      await page.getByLabel('User').waitFor();
      assert.deepEqual(faults, []);
      await context.close();
    },
  },
  {
    name: 'a session that the server ends is over in the page: the login is asked for, and comes back to the same place',
    async walk(given) {
      const { context, page } = await into(given, '/users');
      const name = `leaver-${Date.now()}`;
      const link = await added(page, name);
      const other = await visit(given.browser, given);
      await other.page.goto(link);
      await other.page.getByRole('button', { name: 'Log in' }).click();
      await other.page.getByRole('heading', { level: 1, name: 'Overview' }).waitFor({ timeout: LOGIN_MS });
      await other.page.goto('/jobs?state=failed');
      await other.page.getByRole('heading', { level: 1, name: 'Jobs' }).waitFor();
      const ended = await page.evaluate(async (who) => {
        const { csrf } = await (await fetch('/auth/session')).json();
        return (await fetch(`/api/users/${who}/sessions`, { method: 'DELETE', headers: { 'x-af-csrf': csrf } })).status;
      }, name);
      assert.ok(ended >= 200 && ended < 300, `the sessions end: ${ended}`);
      // The cookies are still there, and worth nothing: the next thing that the page asks is refused, and so is a renewal.
      assert.ok((await other.context.cookies()).length > 0);
      await other.page.keyboard.press('r');
      await other.page.getByLabel('User').waitFor();
      assert.equal(await other.page.getByRole('table', { name: 'Jobs' }).count(), 0, 'nothing of before is seen');
      const refused = await other.page.evaluate(async () => (await fetch('/api/orchestrator/v1/jobs')).status);
      assert.equal(refused, 401);
      await other.page.getByLabel('User').fill(given.user);
      await other.page.getByLabel('Password', { exact: true }).fill(given.password);
      await other.page.getByRole('button', { name: 'Log in' }).click();
      await other.page.getByRole('table', { name: 'Jobs' }).waitFor({ timeout: LOGIN_MS });
      assert.equal(new URL(other.page.url()).search, '?state=failed');
      assert.deepEqual(other.faults, []);
      await other.context.close();
      await page.reload();
      await page.getByRole('button', { name: `Actions for ${name}` }).click();
      await page.getByRole('button', { name: 'Remove…' }).click();
      await page.getByRole('button', { name: 'Remove', exact: true }).click();
      await page.getByRole('row', { name: new RegExp(name) }).waitFor({ state: 'detached' });
      await context.close();
    },
  },
  {
    name: 'a login by the provider that did not succeed says what to do',
    async walk(given) {
      const { context, page, faults } = await visit(given.browser, given);
      await page.goto('/?login=failed');
      await page.getByRole('alert').filter({ hasText: /did not succeed/ }).waitFor();
      assert.equal(new URL(page.url()).search, '', 'a reload does not say it again');
      assert.deepEqual(await axe(page), []);
      assert.deepEqual(faults, []);
      await context.close();
    },
  },
  {
    name: 'a site that is cut off is shown so, and so is its return',
    slow: true,
    async walk(given) {
      assert.ok(given.nats, '--nats is needed: the process of the NATS server');
      const { context, page } = await into(given, '/sites');
      await page.locator('.chip', { hasText: 'link up' }).waitFor();
      process.kill(given.nats, 'SIGSTOP');
      try {
        await page.locator('.chip', { hasText: 'link down' }).waitFor({ timeout: 90_000 });
      } finally {
        process.kill(given.nats, 'SIGCONT');
      }
      await page.locator('.chip', { hasText: 'link up' }).waitFor({ timeout: 90_000 });
      // The server remembers it, for those who look later.
      await page.reload();
      await page.getByRole('region', { name: 'Links of the last day' }).getByRole('img', { name: /[1-9]\d* outages?, the longest/ }).first().waitFor();
      const history = page.getByRole('list').filter({ hasText: 'down' });
      await history.getByText('up', { exact: true }).first().waitFor();
      assert.deepEqual(await axe(page), []);
      await context.close();
    },
  },
  {
    name: 'who fails too often is locked out, learns for how long, and gets in after that',
    slow: true,
    async walk(given) {
      const { context, page, faults } = await visit(given.browser, given);
      await page.goto('/');
      const enter = page.getByRole('button', { name: 'Log in' });
      const wait = page.getByRole('button', { name: /^Wait / });
      await page.getByLabel('User').fill(`nobody-${Date.now()}`);
      for (let tries = 0; tries < 12 && !(await wait.isVisible()); tries += 1) {
        await page.getByLabel('Password', { exact: true }).fill(`wrong ${tries}`);
        const answered = page.waitForResponse((one) => one.url().endsWith('/auth/login'), { timeout: LOGIN_MS });
        await enter.click();
        await (await answered).finished();
        await enter.or(wait).and(page.locator(':enabled, :disabled')).first().waitFor();
      }
      await page.getByRole('alert').filter({ hasText: /too many failed logins/ }).waitFor();
      await wait.waitFor();
      assert.ok(await wait.isDisabled());
      assert.deepEqual(await axe(page), []);
      await page.getByLabel('User').fill(given.user);
      await page.getByLabel('Password', { exact: true }).fill(given.password);
      await enter.click({ timeout: LOGIN_MS });
      await page.getByRole('heading', { level: 1, name: 'Overview' }).waitFor({ timeout: LOGIN_MS });
      assert.deepEqual(faults, []);
      await context.close();
    },
  },
];
