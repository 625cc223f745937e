// What others write is shown as text: job args, outputs, errors, titles, answers of webhooks, items of the board, names of browsers,
// evidence. Nothing of it runs.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { rename, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import path from 'node:path';
import { login, LOGIN_MS, settled, visit } from './browser.mjs';

const RUN = "globalThis.hit=1;document.title='hit'";
const BAD = `<img src=x onerror="${RUN}"><svg onload="${RUN}"></svg></script><script>${RUN}</script>{{constructor.constructor("${RUN}")()}}`;
const LINK = `javascript:${RUN}`;
const PNG = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAFklEQVR4nGP8z8DAwMDAxMDAwMDAAAANHQEDasKb6QAAAABJRU5ErkJggg==', 'base64');
const SVG = Buffer.from(`<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9" onload="${RUN}"><script>${RUN}</script></svg>`);
const HTML = Buffer.from(`<!doctype html><title>evidence</title><body onload="${RUN}"><script>${RUN}</script>`);

/** A call of the page's own session. */
function call(page, method, address, body) {
  return page.evaluate(
    async ([how, where, what]) => {
      const { csrf } = await (await fetch('/auth/session')).json();
      const answer = await fetch(where, { method: how, headers: { 'content-type': 'application/json', 'x-af-csrf': csrf }, body: what === undefined ? undefined : JSON.stringify(what) });
      const text = await answer.text();
      if (!answer.ok) throw new Error(`${how} ${where}: ${answer.status} ${text}`);
      return text ? JSON.parse(text) : undefined;
    },
    [method, address, body],
  );
}

/** The text is there, as text, and nothing of it ran. */
async function shown(page, where, text = 'onerror=') {
  await page.waitForFunction((part) => document.body.innerText.includes(part) || [...document.querySelectorAll('input, textarea')].some((one) => one.value.includes(part)), text).catch(() => assert.fail(`${where} does not show the text`));
  const state = await page.evaluate(() => ({ hit: globalThis.hit, title: document.title, links: [...document.querySelectorAll('a[href]')].map((one) => one.href).filter((one) => /^\s*(javascript|data|vbscript):/i.test(one)), images: document.querySelectorAll('main img[src=x], main svg[onload]').length }));
  assert.equal(state.hit, undefined, `${where}: a script ran`);
  assert.ok(!state.title.includes('hit'), `${where}: ${state.title}`);
  assert.deepEqual([state.links, state.images], [[], 0], where);
}

/** Puts a file where the syncdaemon finds it; its name as evidence once the hub has it. */
async function deliver(page, given, name, bytes) {
  assert.ok(given.replay, '--replay is needed: the folder that the syncdaemon watches');
  const beside = path.join(given.replay, `.${name}.part`);
  await writeFile(beside, bytes);
  await rename(beside, path.join(given.replay, name));
  return `dev/${createHash('sha256').update(bytes).digest('hex')}`;
}

/** A marker whose evidence is there: it says so once the hub has the file. */
async function mark(page, id, title, evidence) {
  await call(page, 'POST', '/api/tactical/v1/markers', { id, site: 'dev', title, description: LINK, coordinates: [13.4, 52.5], severity: 'high', evidence_id: evidence });
}

export const journeys = [
  {
    name: 'what others write is text on every page, and nothing of it runs',
    slow: true,
    async walk(given) {
      const hook = createServer((request, response) => {
        request.resume();
        response.writeHead(500, { 'content-type': 'text/html' }).end(BAD);
      });
      await new Promise((resolve) => hook.listen(0, '127.0.0.1', resolve));
      const { context, page, faults } = await visit(given.browser, { ...given, userAgent: `Mozilla/5.0 ${BAD}` });
      try {
        // A login of its own: the browser's name is kept with the session.
        await page.goto('/');
        await page.getByLabel('User').fill(given.user);
        await page.getByLabel('Password', { exact: true }).fill(given.password);
        await page.getByRole('button', { name: 'Log in' }).click();
        await page.getByRole('heading', { level: 1, name: 'Overview' }).waitFor({ timeout: LOGIN_MS });
        const stamp = Date.now();
        const echo = await call(page, 'POST', '/api/orchestrator/v1/jobs', { tool: 'echo', args: { text: BAD, link: LINK } });
        const fail = await call(page, 'POST', '/api/orchestrator/v1/jobs', { tool: 'fail', args: { message: BAD }, max_attempts: 1 });
        await call(page, 'POST', '/api/tactical/v1/markers', { id: `bad-${stamp}`, site: 'dev', title: BAD, description: BAD, coordinates: [13.4, 52.5], severity: 'high' });
        const item = await call(page, 'POST', '/api/intake', { text: '<img src=x onerror=globalThis.hit=1>', problem: BAD, hypothesis: LINK });
        const endpoint = `bad-${stamp}`;
        await call(page, 'POST', '/api/broadcaster/v1/endpoints', { name: endpoint, url: `http://127.0.0.1:${hook.address().port}/hook`, subjects: ['agentforge.events.bad.>'] });
        await page.goto(`/jobs/${echo.id}`);
        await page.locator('.chip', { hasText: 'succeeded' }).first().waitFor();
        await shown(page, 'a job with its args and output');
        await page.goto(`/jobs/${fail.id}`);
        await page.locator('.chip', { hasText: /failed|dead/ }).first().waitFor();
        await shown(page, 'a job with its error');
        await page.goto('/jobs');
        await shown(page, 'the list of jobs');
        await page.goto('/dead-letters');
        await shown(page, 'dead letters');
        await page.goto(`/map?thing=marker:bad-${stamp}`);
        await page.getByRole('table', { name: 'Markers and zones' }).getByText('onerror=').first().click({ position: { x: 4, y: 4 } });
        await page.getByRole('region', { name: /^Details of/ }).waitFor();
        await shown(page, 'the map');
        await page.goto(`/intake?item=${item.id}`);
        await page.getByRole('dialog').waitFor();
        await shown(page, 'an item of the board');
        await page.goto(`/webhooks/${endpoint}`);
        await page.getByRole('button', { name: 'Test', exact: true }).click();
        await page.getByText('Not delivered:').waitFor();
        await shown(page, 'an endpoint whose answer is hostile', endpoint);
        await page.goto('/settings');
        await shown(page, 'the list of sessions', 'logged in');
        await page.goto('/audit');
        await settled(page);
        await shown(page, 'the audit log', 'PublishMarker');
        // Addresses are text too.
        for (const address of [`/jobs?q=${encodeURIComponent(BAD)}`, `/jobs/${encodeURIComponent(BAD)}`, `/${encodeURIComponent(BAD)}`, `/intake?owner=${encodeURIComponent(BAD)}`]) {
          await page.goto(address);
          await settled(page);
          assert.equal(await page.evaluate(() => globalThis.hit), undefined, address);
        }
        await call(page, 'DELETE', `/api/broadcaster/v1/endpoints/${endpoint}`);
        assert.deepEqual(faults, []);
      } finally {
        hook.close();
        hook.closeAllConnections();
        await context.close();
      }
    },
  },
  {
    name: 'evidence opens from the map: an image is shown, all else is saved and never run',
    slow: true,
    async walk(given) {
      const { context, page, faults } = await visit(given.browser, given);
      await login(page, given.user, given.password);
      const stamp = Date.now();
      // Each has bytes of its own: a file that was delivered before would be none.
      const files = { png: PNG, svg: SVG, html: HTML };
      for (const [kind, bytes] of Object.entries(files)) {
        const own = kind === 'png' ? bytes : Buffer.concat([bytes, Buffer.from(`<!-- ${stamp} -->`)]);
        const evidence = await deliver(page, given, `evidence-${stamp}.${kind}`, own);
        await mark(page, `${kind}-${stamp}`, `Evidence ${kind} ${stamp}`, evidence);
      }
      await page.goto('/map');
      const list = page.getByRole('table', { name: 'Markers and zones' });
      for (const kind of Object.keys(files)) {
        await list.getByRole('link', { name: `Evidence ${kind} ${stamp}` }).click();
        const details = page.getByRole('region', { name: new RegExp(`^Details of Evidence ${kind}`) });
        const link = details.getByRole('link', { name: 'Save the file' });
        // The file may still be on its way: the page then says so, and a new look helps.
        for (let tries = 0; tries < 60 && (await status(page, link)) !== 200; tries += 1) await page.waitForTimeout(500);
        const answer = await headers(page, link);
        assert.equal(answer.status, 200, kind);
        assert.match(answer.disposition, /^attachment/, kind);
        assert.equal(answer.nosniff, 'nosniff');
        assert.match(answer.policy, /sandbox/);
        if (kind === 'png') {
          await page.reload();
          await page.waitForFunction(() => [...document.querySelectorAll('figure img')].some((one) => one.naturalWidth === 2));
        }
        const [download] = await Promise.all([page.waitForEvent('download'), link.click()]);
        assert.match(download.suggestedFilename(), new RegExp(`${stamp}\\.${kind}$`));
        assert.equal(await page.evaluate(() => globalThis.hit), undefined, kind);
      }
      assert.deepEqual(faults, []);
      await context.close();
    },
  },
];

async function headers(page, link) {
  return page.evaluate(async (address) => {
    const answer = await fetch(address);
    await answer.arrayBuffer();
    const of = (name) => answer.headers.get(name) ?? '';
    return { status: answer.status, disposition: of('content-disposition'), nosniff: of('x-content-type-options'), policy: of('content-security-policy') };
  }, await link.getAttribute('href'));
}

async function status(page, link) {
  return (await headers(page, link)).status;
}
