// BullMQ: jobs in Redis.
import { Queue, Worker } from "bullmq";
import { Redis } from "ioredis";
import { play } from "../contract/contract.mjs";

const QUEUE = "jobs";
const connection = (url) => new Redis(url, { maxRetriesPerRequest: null });

await play({
  async setup() {},

  async submitter(url) {
    const queue = new Queue(QUEUE, { connection: connection(url) });
    await queue.waitUntilReady();
    return {
      many: (all) => queue.addBulk(all.map((data) => ({ name: "echo", data }))),
      one: (args) => queue.add("echo", args),
      close: () => queue.close(),
    };
  },

  async worker(url, completed) {
    const worker = new Worker(QUEUE, async (job) => job.data, {
      connection: connection(url),
      concurrency: 256,
      autorun: false,
    });
    // After the completion is in Redis.
    worker.on("completed", (job) => completed(job.data));
    worker.on("error", (error) => console.error(error));
    await worker.waitUntilReady();
    return {
      async start() {
        void worker.run();
      },
      stop: () => worker.close(),
    };
  },
});
