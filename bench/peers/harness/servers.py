"""Redis, Postgres and NATS: found or installed, and started on free ports of the loopback with their data in one folder."""

import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .process import Problem, Process

ROOT = Path(__file__).resolve().parents[3]
# How long a server may take to come up.
READY_S = 60


@dataclass(frozen=True)
class Server:
    """A running server; `pids` are those whose processor time counts."""

    url: str
    pids: tuple
    version: str


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def accepts(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def version_of(program):
    said = subprocess.run([program, "--version"], check=False, capture_output=True, text=True).stdout
    found = re.search(r"\d+(\.\d+)+", said)
    return found.group(0) if found else "unknown"


def install(package):
    """As root on Debian or Ubuntu; elsewhere the package is named. No service is started."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Problem(f"{package} is not installed (Debian, Ubuntu: sudo apt-get install {package})")
    # At this run level the package's script starts no service.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", package]):
        done = subprocess.run(["apt-get", *command], check=False, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise Problem(f"{package} cannot be installed: {(done.stderr.strip() or 'apt-get failed').splitlines()[-1]}")


def redis_program():
    if not shutil.which("redis-server"):
        install("redis-server")
    return shutil.which("redis-server")


def postgres_folder():
    """The folder of initdb and postgres, as tests find it."""
    folders = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name)), *Path("/usr").glob("pgsql-*/bin")]
    on_path = shutil.which("initdb")
    for folder in [*reversed(folders), *([Path(on_path).parent] if on_path else [])]:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    return None


def postgres_programs():
    if not postgres_folder():
        install("postgresql")
    return postgres_folder()


def nats_program():
    found = subprocess.run([ROOT / "scripts/nats-server", "--path"], check=False, capture_output=True, text=True)
    if found.returncode != 0:
        raise Problem(found.stderr.strip().splitlines()[-1])
    return found.stdout.strip()


@contextmanager
def redis(folder):
    """Redis with its append-only file, synced once per second: its documented setting for data that must survive."""
    program, port, password = redis_program(), free_port(), secrets.token_hex(16)
    configuration = folder / "redis.conf"
    configuration.touch(mode=0o600)
    configuration.write_text(
        f"bind 127.0.0.1\nport {port}\ndir {folder}\nrequirepass {password}\n"
        'appendonly yes\nappendfsync everysec\nsave ""\n'
    )
    with Process([program, configuration], folder / "redis.log") as server:
        server.until(lambda: accepts(port), READY_S)
        yield Server(f"redis://:{password}@127.0.0.1:{port}/0", (server.pid,), version_of(program))


def account():
    """Whom Postgres runs as, since it refuses root: arguments of subprocess."""
    if os.geteuid() != 0:
        return {}
    for user in pwd.getpwall():
        if user.pw_name == "postgres":
            return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    raise Problem("there is no user postgres, and Postgres refuses to run as root")


@contextmanager
def postgres(folder):
    """Postgres with the settings that it ships with: fsync on, synchronous_commit on."""
    programs, port, password = postgres_programs(), free_port(), secrets.token_hex(16)
    owner = account()
    data, secret = folder / "postgres", folder / "password"
    secret.touch(mode=0o600)
    secret.write_text(password)
    data.mkdir(mode=0o700)
    if owner:
        for path in (data, secret):
            shutil.chown(path, owner["user"], owner["group"])
    command = [programs / "initdb", "-D", data, "-U", "bench", "-A", "scram-sha-256", f"--pwfile={secret}", "-E", "UTF8"]
    made = subprocess.run(command, check=False, capture_output=True, text=True, cwd="/", **owner)
    if made.returncode != 0:
        raise Problem(f"initdb failed: {made.stderr.strip().splitlines()[-1]}")
    lock = data / "postmaster.pid"
    # The eighth line of its lock file is its state.
    is_ready = lambda: lock.exists() and "".join(lock.read_text().split("\n")[7:8]).strip() == "ready"
    command = [programs / "postgres", "-D", data, "-p", port, "-h", "127.0.0.1", "-c", "unix_socket_directories="]
    # SIGINT closes its connections; SIGTERM would wait for them.
    with Process(command, folder / "postgres.log", account=owner, cwd="/", ends_on=signal.SIGINT) as server:
        server.until(is_ready, READY_S)
        url = f"postgres://bench:{password}@127.0.0.1:{port}/postgres?sslmode=disable"
        yield Server(url, (server.pid,), version_of(programs / "postgres"))


@contextmanager
def nats(folder):
    """A NATS server with JetStream in files, synced at its default interval."""
    program, port = nats_program(), free_port()
    command = [program, "-a", "127.0.0.1", "-p", port, "-js", "-sd", folder / "jetstream"]
    with Process(command, folder / "nats.log") as server:
        server.until(lambda: accepts(port), READY_S)
        yield Server(f"nats://127.0.0.1:{port}", (server.pid,), version_of(program))


@contextmanager
def sqlite(folder):
    """No server: a file."""
    yield Server(str(folder / "jobs.db"), (), "")


# What a peer keeps its jobs in: how it is started, and how it is provided.
STARTED = {"redis": redis, "postgres": postgres, "nats": nats, "sqlite": sqlite}
PROVIDED = {"redis": redis_program, "postgres": postgres_programs, "nats": nats_program, "sqlite": lambda: None}
