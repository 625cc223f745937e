"""Processes that a benchmark starts: ended by their id, together with it, and read with deadlines."""

import ctypes
import json
import os
import re
import select
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# How long a process may take to end when it is asked to.
END_S = 10
INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
# Every process that has been started and not stopped yet.
RUNNING = []


class Problem(Exception):
    """What is wrong, for people, with what to do next."""


def end_with_parent():
    """In a child before its program starts: the kernel ends it when this program dies without cleaning up."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)


@contextmanager
def uninterrupted():
    """Ctrl-C waits, so that no process starts without being known."""
    signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)


def stop_all():
    """Stops what an interrupt left running, the last first."""
    for process in reversed(RUNNING[:]):
        process.stop()


def last_line(log):
    """What a program said last, as the end of a sentence: the last line that names an error, if one does."""
    try:
        lines = Path(log).read_text(errors="replace").split("\n")
    except OSError:
        return ""
    said = [line.strip() for line in lines if line.strip()]
    errors = [line for line in said[-30:] if re.match(r"[\w.]*(Error|Exception|panic|FATAL)\b", line)]
    return f": {(errors or said)[-1][:300]}" if said else ""


class Process:
    """A running program, in a session of its own, so that Ctrl-C reaches only the benchmark, which then ends it."""

    def __init__(self, command, log, *, cwd=None, env=None, account=None, pipes=False, out=None, ends_on=signal.SIGTERM):
        self.command, self.log, self.ends_on = [str(word) for word in command], Path(log), ends_on
        with open(self.log, "ab") as log, uninterrupted():
            try:
                # end_with_parent runs after the change of user, which would clear what it sets.
                self.child = subprocess.Popen(
                    self.command,
                    cwd=cwd,
                    env={**os.environ, **(env or {})},
                    **(account or {}),
                    stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                    stdout=subprocess.PIPE if pipes else out or log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=end_with_parent,  # noqa: PLW1509 there is one thread
                )
            except OSError as error:
                raise Problem(f"cannot start {self.command[0]}: {error}") from error
            self.pid = self.child.pid
            RUNNING.append(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def has_ended(self):
        return self.child.poll() is not None

    def until(self, is_ready, within_s):
        """Waits until `is_ready()`; a program that ends before is a problem."""
        deadline = time.monotonic() + within_s
        while not is_ready():
            if self.has_ended():
                raise Problem(f"{Path(self.command[0]).name} ended ({self.child.returncode}){last_line(self.log)}")
            if time.monotonic() > deadline:
                raise Problem(f"{Path(self.command[0]).name} was not ready within {within_s} s{last_line(self.log)}")
            time.sleep(0.01)

    def stop(self):
        """Ends it; after a while, with all that it started."""
        if not self.has_ended():
            self.child.send_signal(self.ends_on)
            with suppress(subprocess.TimeoutExpired):
                self.child.wait(END_S)
        # Its session is its own, so these are only its children.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.child.wait()
        if self in RUNNING:
            RUNNING.remove(self)
        for pipe in (self.child.stdin, self.child.stdout):
            if pipe:
                with suppress(BrokenPipeError):
                    pipe.close()


class Program(Process):
    """A peer's program in one of its roles: it reports that it is ready, begins on request, and ends with its input."""

    def __init__(self, command, log, **options):
        super().__init__(command, log, pipes=True, **options)
        self.read = b""

    def stop(self):
        # The end of its input is the polite way.
        if not self.has_ended():
            with suppress(BrokenPipeError, subprocess.TimeoutExpired):
                self.child.stdin.close()
                self.child.wait(END_S)
        super().stop()

    def line(self, within_s):
        """The next line of its output."""
        deadline = time.monotonic() + within_s
        while b"\n" not in self.read:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.child.stdout], [], [], left)[0]:
                raise Problem(f"nothing within {within_s} s from {' '.join(self.command[:3])}{last_line(self.log)}")
            more = os.read(self.child.stdout.fileno(), 1 << 20)
            if not more:
                self.child.wait()
                raise Problem(f"it ended ({self.child.returncode}){last_line(self.log)}")
            self.read += more
        line, self.read = self.read.split(b"\n", 1)
        return line.decode()

    def expect(self, word, within_s):
        line = self.line(within_s)
        if line != word:
            raise Problem(f'it wrote "{line[:100]}" instead of "{word}"')

    def begin(self):
        self.child.stdin.write(b"go\n")
        self.child.stdin.flush()

    def result(self, within_s):
        return json.loads(self.line(within_s))


def processor_time(pids):
    """Seconds of processor time of these processes and of all that they started, ended ones included."""
    parents, taken = {}, {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            stat = Path(entry.path, "stat").read_text()
        except OSError:
            continue
        # After the name in brackets: state, parent, ..., and user and system time, its own and of children that ended.
        fields = stat.rsplit(")", 1)[1].split()
        parents[int(entry.name)] = int(fields[1])
        taken[int(entry.name)] = sum(int(field) for field in fields[11:15])
    total = 0
    for pid, ticks in taken.items():
        above = pid
        while above not in pids and above in parents:
            above = parents[above]
        if above in pids:
            total += ticks
    return total / TICKS_PER_S
