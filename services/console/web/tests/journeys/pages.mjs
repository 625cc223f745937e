// Every page in both themes at three widths: axe finds nothing, no policy is broken, nothing is wider than the window.
import assert from 'node:assert/strict';
import { axe, dismiss, login, settled, shot, visit } from './browser.mjs';

export const PAGES = {
  overview: '/',
  jobs: '/jobs',
  'jobs-filtered': '/jobs?state=failed,dead&columns=state,id,tool,about,labels,worker',
  submit: '/jobs/new?tool=echo',
  operations: '/operations',
  queues: '/queues',
  'dead-letters': '/dead-letters',
  schedules: '/schedules',
  'schedule-new': '/schedules/new',
  agents: '/agents',
  tools: '/agents?show=tools',
  latency: '/latency',
  map: '/map',
  webhooks: '/webhooks',
  'webhook-attempts': '/webhooks?show=deliveries',
  'webhook-letters': '/webhooks?show=dead',
  webhook: '/webhooks/default',
  intake: '/intake',
  audit: '/audit',
  alerts: '/alerts',
  'alert-rules': '/alerts?show=rules',
  runbook: '/alerts?show=runbooks&runbook=backlog',
  sites: '/sites',
  users: '/users',
  settings: '/settings',
  missing: '/no-such-page',
};
export const WIDTHS = { phone: [360, 740], desk: [1440, 900], wall: [2560, 1440] };

async function check(page, given, name) {
  await settled(page);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(wide <= 0, `${name} is ${wide} px wider than the window`);
  const found = await axe(page);
  assert.deepEqual(found, [], `${name}: ${found.join('\n')}`);
  await shot(page, given.out, name);
}

function walkAll(scheme, size) {
  return async (given) => {
    const [width, height] = WIDTHS[size];
    const { context, page, faults } = await visit(given.browser, { ...given, width, height, scheme });
    await login(page, given.user, given.password);
    for (const [name, address] of Object.entries(PAGES)) {
      await page.goto(address);
      await page.getByRole('main').waitFor();
      await check(page, given, `${name}-${scheme}-${size}`);
    }
    // What only exists once it was made: the newest job.
    await page.goto('/jobs');
    await page.getByRole('table', { name: 'Jobs' }).waitFor();
    const link = page.getByRole('table', { name: 'Jobs' }).getByRole('link').first();
    if (await link.isVisible()) {
      await link.click();
      await page.waitForURL(/\/jobs\/[0-9a-f]{8}-/);
      await check(page, given, `job-${scheme}-${size}`);
    }
    assert.deepEqual(faults, []);
    await context.close();
  };
}

/** What opens over pages. */
function overlays(scheme, size) {
  return async (given) => {
    const [width, height] = WIDTHS[size];
    const { context, page, faults } = await visit(given.browser, { ...given, width, height, scheme });
    await page.goto('/');
    await page.getByLabel('User').waitFor();
    await check(page, given, `login-${scheme}-${size}`);
    await login(page, given.user, given.password);
    await page.keyboard.press('Control+k');
    await page.getByRole('dialog').getByRole('combobox').fill('the');
    await check(page, given, `palette-${scheme}-${size}`);
    await dismiss(page);
    await page.keyboard.press('?');
    await page.getByRole('dialog', { name: 'Keys' }).waitFor();
    await check(page, given, `keys-${scheme}-${size}`);
    await dismiss(page);
    await page.goto('/jobs');
    await page.getByRole('table', { name: 'Jobs' }).waitFor();
    await page.getByRole('button', { name: 'Commands', exact: true }).click();
    await check(page, given, `commands-${scheme}-${size}`);
    await dismiss(page);
    await page.getByRole('search').getByRole('button', { name: 'Tool' }).click();
    await page.waitForFunction(() => document.querySelectorAll('.panel .item').length > 1);
    await check(page, given, `tools-menu-${scheme}-${size}`);
    await dismiss(page);
    await page.getByRole('button', { name: 'Failed or dead' }).click();
    await page.getByRole('button', { name: 'Retry all that match…' }).click();
    await page.getByText(/put back, with fresh attempts/).waitFor();
    await check(page, given, `bulk-${scheme}-${size}`);
    await dismiss(page);
    await page.goto('/?kiosk=1');
    await page.getByRole('heading', { level: 1, name: 'Overview' }).waitFor();
    await check(page, given, `kiosk-${scheme}-${size}`);
    assert.equal(await page.getByRole('navigation', { name: 'Pages' }).count(), 0);
    assert.deepEqual(faults, []);
    await context.close();
  };
}

export const journeys = [
  { name: 'what opens over pages is accessible at a desk in the dark', walk: overlays('dark', 'desk') },
  { name: 'what opens over pages is accessible on a phone in the light', slow: true, walk: overlays('light', 'phone') },
  { name: 'every page at a desk in the light is accessible and keeps to its policy', walk: walkAll('light', 'desk') },
  { name: 'every page on a phone in the dark is accessible and keeps to its policy', walk: walkAll('dark', 'phone') },
  ...['light', 'dark'].flatMap((scheme) => Object.keys(WIDTHS).map((size) => ({ name: `every page: ${scheme}, ${size}`, slow: true, walk: walkAll(scheme, size) }))),
];
