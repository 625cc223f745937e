// graphile-worker: jobs in Postgres.
import { EventEmitter } from "node:events";
import { Logger, makeWorkerUtils, run } from "graphile-worker";
import { play } from "../contract/contract.mjs";

const logger = new Logger(() => () => {});

await play({
  async setup(url) {
    const utils = await makeWorkerUtils({ connectionString: url, logger });
    await utils.migrate();
    await utils.release();
  },

  async submitter(url) {
    const utils = await makeWorkerUtils({ connectionString: url, logger });
    return {
      many: (all) => utils.addJobs(all.map((payload) => ({ identifier: "echo", payload }))),
      one: (args) => utils.addJob("echo", args),
      close: () => utils.release(),
    };
  },

  async worker(url, completed) {
    const events = new EventEmitter();
    // After the completion is in the database.
    events.on("job:complete", ({ job }) => completed(job.payload));
    const preset = {
      worker: {
        connectionString: url,
        logger,
        concurrentJobs: 24,
        maxPoolSize: 25,
        localQueue: { size: 500 },
        completeJobBatchDelay: 0,
        failJobBatchDelay: 0,
      },
    };
    let runner;
    return {
      async start() {
        runner = await run({ preset, events, noHandleSignals: true, taskList: { echo: async () => {} } });
      },
      stop: () => runner.stop(),
    };
  },
});
