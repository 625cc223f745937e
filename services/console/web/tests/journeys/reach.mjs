// Journeys of what reaches beyond jobs: the live map, webhooks, the intake board, alerts, the audit log, sites, users.
import assert from 'node:assert/strict';
import { axe, login, settled, until, visit } from './browser.mjs';

async function into(given, address, more = {}) {
  const opened = await visit(given.browser, { ...given, ...more });
  await login(opened.page, given.user, given.password);
  await opened.page.goto(address);
  return opened;
}

export const journeys = [
  {
    name: 'what moves on the map is found, filtered and followed with keys, and stays when the line is cut',
    async walk(given) {
      const { context, page, faults } = await into(given, '/map');
      const list = page.getByRole('table', { name: 'Markers and zones' });
      await list.getByRole('link').first().waitFor();
      await page.locator('[data-ready=true] canvas').waitFor();
      // It moves: the address of the map's list stays, its times and places do not.
      await page.keyboard.press('j');
      await page.keyboard.press('Enter');
      await page.waitForURL(/thing=/);
      const details = page.getByRole('region', { name: /^Details of/ });
      const seen = await details.getByText(/° [NS], /).textContent();
      await page.waitForFunction((before) => ![...document.querySelectorAll('dd')].some((one) => one.textContent === before), seen);
      await details.getByLabel('Follow it').check();
      await page.waitForURL(/follow=1/);
      assert.deepEqual(await axe(page), []);
      const address = page.url();
      await page.reload();
      await details.waitFor();
      assert.equal(new URL(page.url()).searchParams.get('thing'), new URL(address).searchParams.get('thing'));
      await page.getByRole('button', { name: /^critical/ }).click();
      await page.waitForURL(/severity=critical/);
      await page.waitForFunction(() => [...document.querySelectorAll('tbody tr')].every((row) => row.textContent.includes('critical')));
      await context.setOffline(true);
      const offline = page.getByRole('status').filter({ hasText: 'This browser is offline' });
      await offline.waitFor();
      assert.ok((await list.getByRole('link').count()) > 0, 'what was known stays');
      await context.setOffline(false);
      await offline.waitFor({ state: 'detached' });
      assert.deepEqual(faults, []);
      await context.close();
    },
  },
  {
    name: 'an endpoint is created, its secret shown once, tested, paused, resumed, rotated and deleted',
    async walk(given) {
      const { context, page, faults } = await into(given, '/webhooks');
      const name = `journey-${Date.now()}`;
      await page.getByRole('table', { name: 'Endpoints' }).waitFor();
      await page.keyboard.press('n');
      await page.getByRole('dialog').getByLabel('Name').fill(name);
      // Nothing listens there: the test says so.
      await page.getByLabel('Address').fill('http://127.0.0.1:9/hook');
      await page.getByRole('dialog').getByLabel('Subjects').fill('agentforge.events.journey.>');
      assert.deepEqual(await axe(page), []);
      await page.getByRole('dialog').getByRole('button', { name: 'Create', exact: true }).click();
      const secret = page.getByRole('dialog', { name: `The secret of ${name}` });
      assert.match(await secret.locator('code').textContent(), /^whsec_/);
      await page.keyboard.press('Escape');
      await page.waitForURL(new RegExp(`/webhooks/${name}`));
      await page.getByRole('button', { name: 'Test', exact: true }).click();
      await page.getByText('Not delivered:').waitFor();
      await page.getByRole('button', { name: 'Pause' }).click();
      await page.locator('.chip', { hasText: 'paused' }).first().waitFor();
      await page.getByRole('button', { name: 'Resume' }).click();
      await page.locator('.chip', { hasText: 'active' }).first().waitFor();
      // Changed, and back; an address that is none is refused in place.
      await page.getByRole('button', { name: 'Edit…' }).click();
      const edit = page.getByRole('dialog', { name: `Edit ${name}` });
      assert.ok(await edit.getByRole('button', { name: 'Save' }).isDisabled(), 'nothing is changed yet');
      await edit.getByLabel('Requests per second').fill('7.5');
      await edit.getByLabel('Timeout').fill('a while');
      await edit.getByRole('button', { name: 'Save' }).click();
      await edit.getByRole('alert').filter({ hasText: 'timeout' }).waitFor();
      await edit.getByLabel('Timeout').fill('3s');
      assert.deepEqual(await axe(page), []);
      await edit.getByRole('button', { name: 'Save' }).click();
      await page.getByText('7.5 per second, 3s each').waitFor();
      await page.getByText(`Endpoint ${name} is changed`).locator('..').getByRole('button', { name: 'Undo' }).click();
      await page.getByText('10s each').waitFor();
      // Nothing was ever stored under its subjects: a replay counts first, and offers nothing.
      await page.keyboard.press('p');
      const replay = page.getByRole('dialog', { name: 'Send past events again' });
      await replay.getByText('there is nothing to send').waitFor();
      assert.ok(await replay.getByRole('button', { name: 'Send 0 events again' }).isDisabled());
      await replay.getByLabel('Stored since').fill('soon');
      await replay.getByText('neither a span of time nor a moment').waitFor();
      assert.deepEqual(await axe(page), []);
      await page.keyboard.press('Escape');
      await page.getByRole('button', { name: 'Rotate the secret…' }).click();
      await page.getByRole('button', { name: 'Rotate', exact: true }).click();
      await secret.locator('code').waitFor();
      await page.keyboard.press('Escape');
      await page.getByText('Old secrets').waitFor();
      await page.getByRole('button', { name: 'Delete…' }).click();
      await page.getByRole('button', { name: 'Delete', exact: true }).click();
      await page.waitForURL((url) => url.pathname === '/webhooks');
      await settled(page);
      assert.equal(await page.getByRole('link', { name }).count(), 0);
      assert.deepEqual(faults, []);
      await context.close();
    },
  },
  {
    name: 'past events are counted and sent again, all of them or one that waits for an undo',
    async walk(given) {
      const { context, page, faults } = await into(given, '/webhooks?new=1');
      const name = `replay-${Date.now()}`;
      await page.getByRole('dialog').getByLabel('Name').fill(name);
      await page.getByLabel('Address').fill('http://127.0.0.1:9/hook');
      await page.getByRole('dialog').getByRole('button', { name: 'Create', exact: true }).click();
      await page.getByRole('dialog', { name: `The secret of ${name}` }).waitFor();
      await page.keyboard.press('Escape');
      await page.waitForURL(new RegExp(`/webhooks/${name}`));
      // There are events of jobs from before the endpoint was.
      await page.getByRole('button', { name: 'Replay…' }).click();
      const replay = page.getByRole('dialog', { name: 'Send past events again' });
      await replay.getByLabel('Stored since').fill('1d');
      await replay.getByLabel('Events per second').fill('1000');
      await replay.getByRole('button', { name: /^Send [1-9][\d,]* events? again$/ }).click();
      await page.getByText(new RegExp(`events? sent again to ${name}`)).waitFor();
      const attempts = page.getByRole('table', { name: 'Attempts' });
      const again = attempts.getByRole('button', { name: /^Send the event/ }).first();
      // Nothing listens there, so attempts fail and are listed.
      await until(page, () => again.isVisible());
      await again.click();
      const toast = page.getByText(/is sent to .* again$/);
      await toast.locator('..').getByRole('button', { name: 'Undo' }).click();
      await toast.waitFor({ state: 'detached' });
      const sent = page.waitForResponse((answer) => answer.url().endsWith('/v1/replay'));
      await again.click();
      assert.equal((await (await sent).json()).replayed, 1);
      await page.getByRole('button', { name: 'Delete…' }).click();
      await page.getByRole('button', { name: 'Delete', exact: true }).click();
      await page.waitForURL((url) => url.pathname === '/webhooks');
      assert.deepEqual(faults, []);
      await context.close();
    },
  },
  {
    name: 'an item of the board is added, assigned, approved into a job and found by its owner, with keys',
    async walk(given) {
      const { context, page, faults } = await into(given, '/intake');
      const text = `Journey ${Date.now()}`;
      await settled(page);
      await page.keyboard.press('n');
      await page.getByRole('dialog').getByLabel('What').fill(text);
      await page.getByLabel('Tags').fill('Journey, search');
      await page.getByLabel('Impact').fill('40');
      assert.deepEqual(await axe(page), []);
      await page.keyboard.press('Enter');
      const column = (name) => page.getByRole('region', { name });
      await column(/^new/).getByRole('link', { name: text }).click();
      await page.waitForURL(/item=/);
      await page.getByRole('button', { name: 'Assign to me' }).click();
      await page.getByRole('dialog').getByText(given.user, { exact: true }).waitFor();
      await page.getByRole('button', { name: 'Triage', exact: true }).click();
      await page.getByRole('dialog').locator('.chip', { hasText: 'triaged' }).waitFor();
      await page.getByRole('button', { name: 'Approve', exact: true }).click();
      await page.getByRole('dialog').getByRole('link', { name: 'Its job' }).waitFor();
      await page.keyboard.press('Escape');
      await page.getByRole('button', { name: 'Mine' }).click();
      await page.waitForURL(/owner=/);
      await page.reload();
      await column(/^approved/).getByRole('link', { name: text }).waitFor();
      assert.deepEqual(await axe(page), []);
      assert.deepEqual(faults, []);
      await context.close();
    },
  },
  {
    name: 'the audit log is filtered, an entry is opened, and its chain is verified in the browser',
    async walk(given) {
      const { context, page, faults } = await into(given, '/audit');
      const list = page.getByRole('table', { name: 'Entries of the audit log' });
      await list.getByRole('link').first().waitFor();
      const row = list.locator('tbody tr').first();
      const operation = await row.getByRole('link').nth(1).textContent();
      await row.getByRole('link').nth(1).click();
      await page.waitForURL(/entry=/);
      await page.getByRole('dialog', { name: operation }).getByText('Hash', { exact: true }).waitFor();
      await page.keyboard.press('Escape');
      await page.keyboard.press('/');
      await page.getByLabel('What', { exact: true }).fill(operation);
      await page.keyboard.press('Enter');
      await page.waitForURL(new RegExp(`operation=${operation}`));
      await page.reload();
      await list.getByRole('link').first().waitFor();
      await page.getByRole('button', { name: 'Verify' }).click();
      await page.locator('.chip', { hasText: /^whole$/ }).first().waitFor({ timeout: 60_000 });
      assert.equal(await page.getByText('not whole').count(), 0);
      assert.deepEqual(await axe(page), []);
      assert.deepEqual(faults, []);
      await context.close();
    },
  },
  {
    name: 'objectives and runbooks are there without Prometheus, and a runbook is a link',
    async walk(given) {
      const { context, page, faults } = await into(given, '/alerts?show=objectives');
      await page.getByRole('table', { name: 'Objectives' }).getByText('latency', { exact: true }).first().waitFor();
      await page.goto('/alerts?show=runbooks');
      await page.getByRole('searchbox', { name: 'Find' }).waitFor();
      await page.keyboard.press('/');
      await page.keyboard.type('edge');
      await page.getByRole('link', { name: 'edge link' }).click();
      await page.waitForURL(/runbook=edge-link/);
      await page.reload();
      await page.getByRole('dialog', { name: 'Runbook' }).getByRole('heading').nth(1).waitFor();
      assert.deepEqual(await axe(page), []);
      assert.deepEqual(faults, []);
      await context.close();
    },
  },
  {
    name: 'a site shows its link, its queue and its ledger',
    async walk(given) {
      const { context, page, faults } = await into(given, '/sites');
      await page.locator('.chip', { hasText: 'link up' }).waitFor();
      await page.getByText('Waiting files', { exact: true }).waitFor();
      await page.getByText(/ledger verify/).first().waitFor();
      await page.getByRole('list').getByText('up', { exact: true }).first().waitFor();
      // What the orchestrator remembers of links: at least its own, up by now.
      const links = page.getByRole('region', { name: 'Links of the last day' });
      await links.getByRole('img', { name: /over the last 1 d: up \d/ }).first().waitFor();
      assert.deepEqual(await axe(page), []);
      assert.deepEqual(faults, []);
      await context.close();
    },
  },
  {
    name: 'a user is added with a one-time link, gets another role, is disabled, enabled and removed',
    async walk(given) {
      const { context, page, faults } = await into(given, '/users');
      const name = `journey-${Date.now()}`;
      await page.getByRole('table', { name: 'Users' }).getByRole('row').nth(1).waitFor();
      await page.keyboard.press('n');
      await page.getByRole('dialog').getByLabel('Name').fill(name);
      await page.getByRole('dialog').getByRole('button', { name: 'Add', exact: true }).click();
      assert.match(await page.getByRole('dialog', { name: `One-time link of ${name}` }).locator('code').textContent(), /\/once\/./);
      await page.keyboard.press('Escape');
      const row = page.getByRole('row', { name: new RegExp(name) });
      await page.getByLabel(`Role of ${name}`).selectOption('operator');
      await page.getByText(`${name} is operator`).waitFor();
      const menu = page.getByRole('button', { name: `Actions for ${name}` });
      await menu.click();
      await page.getByRole('button', { name: 'Disable' }).click();
      await row.locator('.chip', { hasText: 'disabled' }).waitFor();
      await menu.click();
      await page.getByRole('button', { name: 'Enable' }).click();
      await row.locator('.chip', { hasText: 'no password yet' }).waitFor();
      await menu.click();
      await page.getByRole('button', { name: 'Remove…' }).click();
      await page.getByRole('button', { name: 'Remove', exact: true }).click();
      await row.waitFor({ state: 'detached' });
      assert.deepEqual(await axe(page), []);
      assert.deepEqual(faults, []);
      await context.close();
    },
  },
];
