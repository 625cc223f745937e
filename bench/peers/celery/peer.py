"""Celery: jobs in Redis, run by processes."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "contract"))
from celery import Celery
from celery.signals import worker_ready
from contract import Call, finish, ready, say

PROCESSES = 2
# How often the parent reads what its processes have done.
LOOK_S = 0.001

call = Call()
app = Celery("peer", broker=call.url)
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    worker_prefetch_multiplier=64,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)
# Shared with the processes that run the tasks.
completed = multiprocessing.Value("l", 0)
latencies = multiprocessing.Array("d", call.count or 1, lock=False)


@app.task(name="echo")
def echo(args):
    latency = (time.time() - args["sent"]) * 1e3
    with completed.get_lock():
        latencies[completed.value] = latency
        completed.value += 1


def submit():
    with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
        connection.ensure_connection()
        ready()
        begun = time.time()
        for n in range(call.count):
            if call.rate:
                time.sleep(max(0, begun + n / call.rate - time.time()))
            echo.apply_async((call.args(n),), producer=producer)
        finish(begun=begun, ended=time.time())


def report(working):
    # Its processes take a second to start, which is not counted.
    working.wait()
    begun = time.time()
    say("working")
    while completed.value < call.count:
        time.sleep(LOOK_S)
    finish(begun=begun, ended=time.time(), latencies_ms=latencies[:])
    os.kill(os.getpid(), signal.SIGTERM)


def work():
    working = threading.Event()
    worker_ready.connect(lambda **_: working.set(), weak=False)
    ready()
    threading.Thread(target=report, args=(working,), daemon=True).start()
    words = ["worker", "--pool=prefork", f"--concurrency={PROCESSES}", "--loglevel=ERROR"]
    app.worker_main([*words, "--without-gossip", "--without-mingle", "--without-heartbeat"])


if call.role == "setup":
    say("ready")
else:
    {"submit": submit, "work": work}[call.role]()
