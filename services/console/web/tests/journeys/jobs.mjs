// Journeys of jobs: submit, follow, find, filter, cancel, retry, many at once.
import assert from 'node:assert/strict';
import { axe, login, settled, visit } from './browser.mjs';

async function submit(page, tool, args, more = {}) {
  await page.goto('/jobs/new');
  await page.getByLabel('Tool', { exact: false }).first().fill(tool);
  await page.getByLabel(/^Args/).fill(JSON.stringify(args));
  if (Object.keys(more).length > 0) await page.getByText('Labels, times, attempts').click();
  for (const [label, value] of Object.entries(more)) await page.getByLabel(label).fill(value);
  await page.getByRole('button', { name: 'Submit' }).click();
  await page.waitForURL(/\/jobs\/[0-9a-f]{8}-/);
  return new URL(page.url()).pathname.split('/').pop();
}

/** Types a filter into the list of jobs, by keys. */
async function filter(page, text) {
  await page.goto('/jobs');
  await page.getByRole('table', { name: 'Jobs' }).waitFor();
  await page.keyboard.press('/');
  await page.keyboard.type(text);
  await page.keyboard.press('Enter');
}

const chip = (page, state) => page.locator('header .chip', { hasText: state }).first();

export const journeys = [
  {
    name: 'a job is submitted, followed to its result, and submitted again with other args',
    async walk(given) {
      const { context, page, faults } = await visit(given.browser, given);
      await login(page, given.user, given.password);
      const id = await submit(page, 'echo', { greeting: 'hello' });
      await chip(page, 'succeeded').waitFor();
      await page.getByRole('group', { name: 'result' }).getByText('"hello"').waitFor();
      await settled(page);
      assert.deepEqual(await axe(page), []);
      await page.getByRole('link', { name: 'Again…' }).click();
      const args = page.getByLabel(/^Args/);
      await page.waitForFunction(() => document.querySelector('textarea')?.value.includes('hello'));
      await args.fill('{"greeting":"other"}');
      await page.getByRole('button', { name: 'Submit' }).click();
      await page.waitForURL((url) => /\/jobs\/[0-9a-f]{8}-/.test(url.pathname) && !url.pathname.includes(id));
      await page.getByRole('group', { name: 'result' }).getByText('"other"').waitFor();
      assert.deepEqual(faults, []);
      await context.close();
    },
  },
  {
    name: 'a wrong field is named and nothing is lost',
    async walk(given) {
      const { context, page } = await visit(given.browser, given);
      await login(page, given.user, given.password);
      await page.goto('/jobs/new');
      await page.getByLabel('Tool', { exact: false }).first().fill('echo');
      await page.getByLabel(/^Args/).fill('{"a":');
      await page.getByRole('button', { name: 'Submit' }).click();
      await page.getByRole('alert').filter({ hasText: 'not JSON' }).waitFor();
      assert.equal(await page.getByLabel(/^Args/).getAttribute('aria-invalid'), 'true');
      assert.equal(await page.getByLabel(/^Args/).inputValue(), '{"a":');
      await page.getByLabel(/^Args/).fill('{}');
      await page.getByLabel('Queue').fill('not a queue!');
      await page.getByRole('button', { name: 'Submit' }).click();
      await page.getByRole('alert').filter({ hasText: 'queue' }).waitFor();
      await context.close();
    },
  },
  {
    name: 'a running job is cancelled, the cancel is undone, and the job is found by its id',
    async walk(given) {
      const { context, page, faults } = await visit(given.browser, given);
      await login(page, given.user, given.password);
      const id = await submit(page, 'sleep', { seconds: 120 });
      await chip(page, 'running').waitFor();
      await page.keyboard.press('c');
      await chip(page, 'cancelled').waitFor();
      await page.getByText('is cancelled').locator('..').getByRole('button', { name: 'Undo' }).click();
      await chip(page, 'running').waitFor();
      await filter(page, id.slice(0, 18));
      // Ids of the same moment begin alike; with one only it is opened, with several the list has it.
      await page.waitForURL((url) => url.pathname === `/jobs/${id}` || url.searchParams.has('q'));
      await page.goto(`/jobs/${id}`);
      await page.getByRole('button', { name: 'Cancel' }).click();
      await chip(page, 'cancelled').waitFor();
      assert.deepEqual(faults, []);
      await context.close();
    },
  },
  {
    name: 'jobs are found by the text of their error, in the address, the command and a retry that is counted',
    async walk(given) {
      const { context, page, faults } = await visit(given.browser, given);
      await login(page, given.user, given.password);
      const mark = `told${Date.now()}`;
      const id = await submit(page, 'fail', {}, { 'Attempts at most': '1', Labels: `mark=${mark}` });
      await page.getByText('failed as asked').first().waitFor();
      await filter(page, `label:mark=${mark} FAILED as`);
      // As text it is looked for in the rows of this page; one press, and all jobs are searched.
      await page.getByRole('button', { name: 'Search the errors of all jobs' }).click();
      await page.waitForURL((url) => url.searchParams.get('error') === 'FAILED as' && !url.searchParams.has('q'));
      await page.getByRole('table', { name: 'Jobs' }).getByRole('link', { name: id.slice(-8) }).first().waitFor();
      await page.reload();
      await page.getByRole('button', { name: 'Commands' }).click();
      await page.getByText("--error 'FAILED as'").first().waitFor();
      await page.keyboard.press('Escape');
      await page.getByRole('button', { name: 'Retry all that match…' }).click();
      await page.getByRole('button', { name: 'Retry 1 job' }).waitFor();
      await page.keyboard.press('Escape');
      await filter(page, `label:mark=${mark} error:"no such words"`);
      await page.getByText('No job matches').waitFor();
      assert.deepEqual(faults, []);
      await context.close();
    },
  },
  {
    name: 'many jobs are filtered, counted and cancelled',
    async walk(given) {
      const { context, page, faults } = await visit(given.browser, given);
      await login(page, given.user, given.password);
      const mark = `bulk${Date.now()}`;
      for (let n = 0; n < 3; n += 1) await submit(page, 'sleep', { seconds: 300 + n }, { 'Not before': '1h', Labels: `mark=${mark}` });
      await filter(page, `label:mark=${mark}`);
      await page.getByRole('button', { name: 'Cancel all that match…' }).click();
      await page.getByRole('button', { name: 'Cancel 3 jobs' }).click();
      await page.getByText('3 jobs cancelled').waitFor();
      await page.getByRole('table', { name: 'Jobs' }).getByText('cancelled').nth(2).waitFor();
      // Chosen by keys, put back.
      await page.keyboard.press('j');
      await page.keyboard.press('x');
      await page.getByRole('button', { name: 'Retry 1' }).click();
      await page.getByRole('button', { name: 'Retry 1 job' }).click();
      await page.getByText('1 job put back').waitFor();
      assert.deepEqual(faults, []);
      await context.close();
    },
  },
];
