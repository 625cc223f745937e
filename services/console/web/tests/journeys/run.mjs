// Walks through a running console as people do. Arguments: --url URL --user U --password P [--replay FOLDER] [--nats PID] [--out FOLDER] [--only WORD]… [--all]
// A short set without --all; with it every page in both themes at three widths, with screenshots.
import { parseArgs } from 'node:util';
import { open, shot } from './browser.mjs';
import * as hostile from './hostile.mjs';
import * as jobs from './jobs.mjs';
import * as pages from './pages.mjs';
import * as people from './people.mjs';
import * as reach from './reach.mjs';
import * as shell from './shell.mjs';
import * as states from './states.mjs';
import * as work from './work.mjs';

const { values } = parseArgs({
  options: { url: { type: 'string' }, user: { type: 'string' }, password: { type: 'string' }, replay: { type: 'string' }, nats: { type: 'string' }, out: { type: 'string' }, only: { type: 'string', multiple: true }, all: { type: 'boolean' } },
});
if (!values.url || !values.user || !values.password) {
  console.error('run.mjs: --url, --user and --password are needed');
  process.exit(64);
}
const journeys = [...shell.journeys, ...jobs.journeys, ...reach.journeys, ...work.journeys, ...hostile.journeys, ...pages.journeys, ...states.journeys, ...people.journeys].filter((one) => (values.all || !one.slow) && (!values.only || values.only.some((word) => one.name.includes(word))));
const out = values.out ?? 'test-output';
const { browser, close } = await open();
let failed = 0;
for (const journey of journeys) {
  const begun = Date.now();
  try {
    await journey.walk({ browser, url: values.url, user: values.user, password: values.password, replay: values.replay, nats: values.nats && Number(values.nats), out });
    console.log(`ok   ${journey.name} (${Date.now() - begun} ms)`);
  } catch (error) {
    failed += 1;
    const pages = browser.contexts().flatMap((context) => context.pages());
    for (const page of pages) await shot(page, out, `failed-${failed}`).catch(() => undefined);
    console.log(`FAIL ${journey.name}\n     ${String(error?.message ?? error).split('\n').slice(0, 14).join('\n     ')}`);
  }
  await Promise.all(browser.contexts().map((context) => context.close().catch(() => undefined)));
}
await close();
console.log(`${journeys.length - failed} passed, ${failed} failed`);
process.exit(failed > 0 || journeys.length === 0 ? 1 : 0);
