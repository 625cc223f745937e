// Every page when its services fail, answer slowly, have nothing, or have words that are much too long: axe finds nothing, nothing is
// wider than the window, and what is not there is said.
import assert from 'node:assert/strict';
import { axe, login, settled, shot, visit } from './browser.mjs';
import { PAGES, WIDTHS } from './pages.mjs';

const LONG = 'an-unusually-long-name-without-any-place-to-break-it-'.repeat(4);
/** What people and programs name or write. Words that the pages know, such as states, stay. */
const WRITTEN = new Set(['tool', 'queue', 'name', 'site', 'host', 'message', 'detail', 'summary', 'description', 'worker', 'submitted_by', 'owner', 'text', 'endpoint', 'title', 'user', 'meaning', 'subject', 'mission']);

function longer(value, key) {
  if (Array.isArray(value)) return value.map((one) => longer(one, key));
  if (value && typeof value === 'object') return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, longer(one, name)]));
  return typeof value === 'string' && value && WRITTEN.has(key) ? `${value}-${LONG}` : value;
}
function emptied(value) {
  if (Array.isArray(value)) return [];
  if (value && typeof value === 'object') return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, emptied(one)]));
  return value;
}

/** Changes what the services answer; the answers of a session stay. */
const WAYS = {
  error: (route) => route.fulfill({ status: 502, contentType: 'application/problem+json', body: JSON.stringify({ status: 502, code: 'upstream_unavailable', title: 'Bad Gateway', detail: 'the orchestrator cannot be reached (ORCHESTRATOR_URL)' }) }),
  loading: () => undefined,
  empty: (route) => changed(route, emptied),
  long: (route) => changed(route, (body) => longer(body, '')),
};
async function changed(route, change) {
  const answer = await route.fetch().catch(() => undefined);
  if (!answer) return route.abort().catch(() => undefined);
  const body = await answer.json().catch(() => undefined);
  await route.fulfill(body === undefined ? { response: answer } : { response: answer, json: change(body) }).catch(() => undefined);
}

function walk(way, scheme, size) {
  return async (given) => {
    const [width, height] = WIDTHS[size];
    const { context, page, faults } = await visit(given.browser, { ...given, width, height, scheme });
    await login(page, given.user, given.password);
    await page.route(/\/api\//, WAYS[way]);
    for (const [name, address] of Object.entries(PAGES)) {
      await page.goto(address);
      const main = page.getByRole('main');
      await main.getByRole('heading', { level: 1 }).waitFor();
      if (way === 'loading') await page.waitForTimeout(300);
      else await settled(page);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      await shot(page, given.out, `${name}-${way}-${scheme}-${size}`);
      assert.ok(wide <= 0, `${name}, ${way}: ${wide} px wider than the window`);
      const found = await axe(page);
      assert.deepEqual(found, [], `${name}, ${way}: ${found.join('\n')}`);
      assert.ok(((await main.textContent()) ?? '').trim().length > 10, `${name}, ${way}: it says nothing`);
    }
    assert.deepEqual(faults.filter((one) => !/^error: .*aborted/i.test(one)), []);
    await context.close();
  };
}

export const journeys = Object.keys(WAYS).flatMap((way) => [
  { name: `every page at a desk: ${way}`, slow: true, walk: walk(way, 'light', 'desk') },
  { name: `every page on a phone: ${way}`, slow: true, walk: walk(way, 'dark', 'phone') },
]);
