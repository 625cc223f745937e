// The roles of a peer's program, as ../README.md describes them: setup, submit and work.
import { createInterface } from "node:readline";

const STREAMS = 2;
const CHUNK = 1_000;

/** Seconds since the epoch, to the microsecond. */
export const now = () => (performance.timeOrigin + performance.now()) / 1e3;

const say = (text) => process.stdout.write(`${text}\n`);

/** Makes the args of jobs, of `bytes` bytes as JSON, with the moment in which they are made. */
function maker(bytes) {
  const pad = "x".repeat(Math.max(0, bytes - JSON.stringify({ n: 10_000, sent: now(), pad: "" }).length));
  return (n) => ({ n, sent: now(), pad });
}

async function many(submitter, count, args) {
  let next = 0;
  const stream = async () => {
    while (next < count) {
      const first = next;
      next = Math.min(count, first + CHUNK);
      await submitter.many(Array.from({ length: next - first }, (_, i) => args(first + i)));
    }
  };
  await Promise.all(Array.from({ length: STREAMS }, stream));
}

async function steadily(submitter, count, args, rate) {
  const begun = now();
  const sent = [];
  for (let n = 0; n < count; n++) {
    const wait = begun + n / rate - now();
    if (wait > 0) await new Promise((wake) => setTimeout(wake, wait * 1e3));
    sent.push(submitter.one(args(n)));
  }
  await Promise.all(sent);
}

async function submit(peer, url, lines, count, bytes, rate) {
  const submitter = await peer.submitter(url);
  say("ready");
  await lines.next();
  const begun = now();
  await (rate > 0 ? steadily(submitter, count, maker(bytes), rate) : many(submitter, count, maker(bytes)));
  say(JSON.stringify({ begun, ended: now() }));
  await lines.next();
  await submitter.close();
}

async function work(peer, url, lines, count) {
  const latencies_ms = [];
  let finish;
  const finished = new Promise((resolve) => (finish = resolve));
  const worker = await peer.worker(url, (args) => {
    latencies_ms.push((now() - args.sent) * 1e3);
    if (latencies_ms.length === count) finish();
  });
  say("ready");
  await lines.next();
  const begun = now();
  await worker.start();
  say("working");
  await finished;
  say(JSON.stringify({ begun, ended: now(), latencies_ms }));
  await lines.next();
  await worker.stop();
}

/** Plays the role that the command line names. */
export async function play(peer) {
  const [role, ...numbers] = process.argv.slice(2);
  const [count, bytes, rate] = numbers.map(Number);
  const url = process.env.PEER_URL;
  const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  if (role === "setup") {
    await peer.setup(url);
    say("ready");
  } else if (role === "submit") await submit(peer, url, lines, count, bytes, rate);
  else await work(peer, url, lines, count);
  process.exit(0);
}
