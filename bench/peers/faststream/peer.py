"""FastStream: jobs in a JetStream work queue."""

import asyncio
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "contract"))
import uvloop
from contract import Call, finish, ready, say
from faststream.nats import JStream, NatsBroker, PullSub
from nats.js.api import RetentionPolicy, StorageType

SUBJECT = "jobs.echo"
STREAM = JStream("jobs", subjects=["jobs.>"], retention=RetentionPolicy.WORK_QUEUE, storage=StorageType.FILE)
PUBLISHES_MAX = 1_024
CONCURRENCY = 256
# The default of half a second is too short on a busy machine.
ACK_S = 30


async def setup(call):
    broker = NatsBroker(call.url, logger=None)
    # A subscriber declares its stream when it starts.
    broker.subscriber(SUBJECT, stream=STREAM, durable="echo", pull_sub=PullSub())(lambda args: None)
    await broker.start()
    await broker.stop()
    say("ready")


async def submit(call):
    broker = NatsBroker(call.url, logger=None)
    await broker.connect()
    ready()
    begun = time.time()
    publish = lambda n: broker.publish(call.args(n), SUBJECT, stream=STREAM.name, timeout=ACK_S)
    if call.rate:
        sent = []
        for n in range(call.count):
            await asyncio.sleep(max(0, begun + n / call.rate - time.time()))
            sent.append(asyncio.create_task(publish(n)))
        await asyncio.gather(*sent)
    else:
        numbers = iter(range(call.count))

        async def stream():
            for n in numbers:
                await publish(n)

        await asyncio.gather(*(stream() for _ in range(PUBLISHES_MAX)))
    finish(begun=begun, ended=time.time())


async def work(call):
    broker = NatsBroker(call.url, logger=None)
    latencies, finished = [], asyncio.Event()

    @broker.subscriber(SUBJECT, stream=STREAM, durable="echo", pull_sub=PullSub(batch_size=256), max_workers=CONCURRENCY)
    async def echo(args: dict):
        latencies.append((time.time() - args["sent"]) * 1e3)
        if len(latencies) == call.count:
            finished.set()

    await broker.connect()
    ready()
    begun = time.time()
    await broker.start()
    say("working")
    await finished.wait()
    finish(begun=begun, ended=time.time(), latencies_ms=latencies)


uvloop.run({"setup": setup, "submit": submit, "work": work}[sys.argv[1]](Call()))
