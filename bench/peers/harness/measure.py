"""One round of one side: a backlog queued and drained, jobs end to end, latency at a steady rate."""

import json
import subprocess
from dataclasses import dataclass, field

from .process import Problem, Process, Program, last_line, processor_time
from .servers import ROOT, STARTED, nats_program, postgres

# The first jobs open connections and caches; they are run and not counted, as in `agentforge bench jobs`.
WARM_UP_JOBS_MAX = 100
# How long a program may take to start and connect.
START_S = 60


@dataclass
class Options:
    """What is measured."""

    count: int = 20_000
    rounds: int = 3
    args_bytes: int = 256
    rate: int = 200
    rate_seconds: int = 10
    phase_seconds: int = 300


@dataclass
class Side:
    """One that takes its turn in each round: its name, what it says of itself, and how one round of it is measured."""

    name: str
    title: str
    commits: str
    settings: str
    versions: dict
    measure: object  # (Options, folder) -> figures
    rounds: list = field(default_factory=list)
    failures: list = field(default_factory=list)


def quantile(values, q):
    """The value at a share of the sorted list, as `agentforge bench jobs` takes it."""
    ordered = sorted(values)
    return ordered[int((len(ordered) - 1) * q + 0.5)]


def per_s(count, seconds):
    return count / seconds if seconds > 0 else 0.0


class Stage:
    """A peer with its running server: starts its program in a role."""

    def __init__(self, peer, command, server, options, folder):
        self.peer, self.command, self.server, self.options = peer, command, server, options
        self.log = folder / "peer.log"

    def start(self, role, count, rate=0):
        words = [*self.command, role, count, self.options.args_bytes, rate]
        program = Program(words, self.log, env={**self.peer.environment, "PEER_URL": self.server.url})
        try:
            program.expect("ready", START_S)
        except BaseException:
            program.stop()
            raise
        return program

    def submit_all(self):
        """Jobs per second into an idle queue."""
        with self.start("submit", self.options.count) as submitter:
            submitter.begin()
            said = submitter.result(self.options.phase_seconds)
        return per_s(self.options.count, said["ended"] - said["begun"])

    def drain(self):
        """Jobs per second of what is queued, from the start of the worker to its last completion."""
        with self.start("work", self.options.count) as worker:
            worker.begin()
            worker.expect("working", START_S)
            said = worker.result(self.options.phase_seconds)
        return per_s(self.options.count, said["ended"] - said["begun"])

    def together(self, count, rate):
        """Submitter and worker at once; returns seconds from the first submission, milliseconds of each, processor time."""
        with self.start("work", count) as worker, self.start("submit", count, rate) as submitter:
            worker.begin()
            worker.expect("working", START_S)
            pids = {worker.pid, submitter.pid, *self.server.pids}
            before = processor_time(pids)
            submitter.begin()
            within_s = self.options.phase_seconds + (count / rate if rate else 0)
            submitted = submitter.result(within_s)
            worked = worker.result(within_s)
            taken = processor_time(pids) - before
        return worked["ended"] - submitted["begun"], worked["latencies_ms"], taken


def measure_peer(peer, command, options, folder):
    with STARTED[peer.keeps](folder) as server:
        stage = Stage(peer, command, server, options, folder)
        with stage.start("setup", 0):
            pass
        figures = {"enqueue_per_s": stage.submit_all(), "drain_per_s": stage.drain()}
        seconds, _, taken = stage.together(options.count, 0)
        figures["end_to_end_per_s"] = per_s(options.count, seconds)
        figures["cpu_us_per_job"] = taken / options.count * 1e6
        if options.rate_seconds:
            warm_up = min(options.rate, WARM_UP_JOBS_MAX)
            _, waited, _ = stage.together(options.rate * options.rate_seconds + warm_up, options.rate)
            figures["p50_ms"] = quantile(waited[warm_up:], 0.5)
            figures["p99_ms"] = quantile(waited[warm_up:], 0.99)
        if server.version:
            figures["server_version"] = server.version
    return figures


def measure_product(binary, store, options, folder):
    """`agentforge bench jobs` with one round of everything."""
    if store == "postgres":
        with postgres(folder) as server:
            return {**bench_jobs(binary, options, folder, ["--store", server.url]), "server_version": server.version}
    return bench_jobs(binary, options, folder, [])


def bench_jobs(binary, options, folder, more):
    words = [binary, "bench", "jobs", "--json", "--count", options.count, "--rounds", 1, "--args-bytes", options.args_bytes]
    words += ["--rate", options.rate, "--rate-seconds", options.rate_seconds]
    words += ["--drain", options.count, "--drain-rounds", 1, "--data-dir", folder / "agentforge", *more]
    environment = {"AGENTFORGE_NATS_SERVER": nats_program()}
    within_s = 4 * options.phase_seconds + options.rate_seconds
    output = folder / "bench.json"
    with open(output, "wb") as out:
        program = Process(words, folder / "agentforge.log", cwd=ROOT, env=environment, out=out)
    with program:
        try:
            status = program.child.wait(within_s)
        except subprocess.TimeoutExpired:
            raise Problem(f"agentforge bench jobs did not end within {within_s} s") from None
    said = json.loads(output.read_text() or "{}")
    if status != 0 or "jobs_per_s" not in said:
        raise Problem(f"agentforge bench jobs failed ({status}){last_line(program.log)}")
    drains = said["drains"][0]
    return {
        "floor_per_s": said["floor_per_s"],
        "enqueue_per_s": median_of(drains.get("enqueued_per_s", [])),
        "drain_per_s": median_of(drains["per_s"]),
        "end_to_end_per_s": said["jobs_per_s"],
        "p50_ms": said["p50_ms"],
        "p99_ms": said["p99_ms"],
        "cpu_us_per_job": said.get("cpu_us_per_job"),
        "lost": said["lost"],
        "duplicated": said["duplicated"],
        "optimised": said["machine"]["optimised"],
    }


def median_of(values):
    """The middle of the figures that exist; nothing of none."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    half = len(known) // 2
    return known[half] if len(known) % 2 else (known[half - 1] + known[half]) / 2

