"""The peers: what each is, what it commits, how it is installed and started."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from .process import Problem
from .servers import PROVIDED, ROOT

SOURCES = ROOT / "bench/peers"
# Where peers are installed and built; `cargo clean` removes it.
BUILT = ROOT / "target/peers"

REDIS = "Redis, append-only file synced once per second: a crash of the machine loses up to 1 s"
POSTGRES = "Postgres, synced in each commit"


@dataclass(frozen=True)
class Peer:
    """A job library in a folder of its own, with its lock file."""

    name: str  # the folder's
    title: str
    kind: str  # how it is installed: npm, pip, go, cargo
    keeps: str  # where its jobs are: redis, postgres, nats, sqlite
    package: str  # the one whose version is reported
    commits: str  # what is durable when submission and completion are acknowledged
    settings: str
    environment: dict = field(default_factory=dict)

    @property
    def folder(self):
        return SOURCES / self.name.removesuffix("-sqlite")

    @property
    def version(self):
        """As the peer's own file pins it."""
        return pinned(self.folder, self.package)


PEERS = [
    Peer(
        name="graphile-worker",
        title="graphile-worker + Postgres",
        kind="npm",
        keeps="postgres",
        package="graphile-worker",
        commits=f"{POSTGRES}, completions in batches; finished jobs are deleted, no results",
        settings="localQueue 500, completeJobBatchDelay 0, 24 at once, addJobs of 1,000",
    ),
    Peer(
        name="river",
        title="River + Postgres",
        kind="go",
        keeps="postgres",
        package="github.com/riverqueue/river",
        commits=f"{POSTGRES}, completions in batches; finished jobs are kept, no results",
        settings="FetchCooldown 1 ms, 1,000 at once, InsertManyFast of 1,000",
        environment={"PEER_STORE": "postgres"},
    ),
    Peer(
        name="river-sqlite",
        title="River + SQLite",
        kind="go",
        keeps="sqlite",
        package="github.com/riverqueue/river",
        commits="SQLite, synchronous=FULL: synced in each commit; finished jobs are kept, no results",
        settings="FetchCooldown 1 ms, 1,000 at once, InsertManyFast of 1,000, one connection",
        environment={"PEER_STORE": "sqlite"},
    ),
    Peer(
        name="apalis",
        title="apalis + Redis",
        kind="cargo",
        keeps="redis",
        package="apalis-redis",
        commits=f"{REDIS}; finished jobs are kept",
        settings="256 at once, batches of 500, push_bulk of 500",
    ),
    Peer(
        name="bullmq",
        title="BullMQ + Redis",
        kind="npm",
        keeps="redis",
        package="bullmq",
        commits=f"{REDIS}; finished jobs and results are kept",
        settings="256 at once, addBulk of 1,000",
    ),
    Peer(
        name="asynq",
        title="Asynq + Redis",
        kind="go",
        keeps="redis",
        package="github.com/hibiken/asynq",
        commits=f"{REDIS}; finished jobs are deleted, no results",
        settings="256 at once, TaskCheckInterval 10 ms, 64 submitters",
    ),
    Peer(
        name="celery",
        title="Celery + Redis",
        kind="pip",
        keeps="redis",
        package="celery",
        commits=f"{REDIS}; acknowledged after the run, no results",
        settings="prefork with 2 processes, prefetch of 64 for each, acks_late",
    ),
    Peer(
        name="faststream",
        title="FastStream + JetStream",
        kind="pip",
        keeps="nats",
        package="faststream",
        commits="JetStream file, synced every 2 min: a crash of the machine may lose those; acks unconfirmed, no results",
        settings="pull of 256, 256 at once, 1,024 publishes in flight",
    ),
]

PROGRAMS = {"npm": ("node", "npm"), "pip": (), "go": ("go",), "cargo": ("cargo",)}
PINS = {"npm": "package.json", "pip": "requirements.txt", "go": "go.mod", "cargo": "Cargo.toml"}
LOCKS = {"npm": "package-lock.json", "pip": "requirements.txt", "go": "go.sum", "cargo": "Cargo.lock"}


def pinned(folder, package):
    """The version of a package in package.json, requirements.txt, go.mod or Cargo.toml."""
    pattern = re.compile(rf'^\W*{re.escape(package)}\W+v?(\d[\w.]*)(["\s].*)?$', re.MULTILINE)
    for name in PINS.values():
        if (folder / name).exists() and (found := pattern.search((folder / name).read_text())):
            return found.group(1)
    raise Problem(f"{folder} pins no {package}")


def run(command, what, **options):
    """A step of an installation; its output only when it fails."""
    done = subprocess.run([str(word) for word in command], check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode != 0:
        lines = [line for line in done.stdout.strip().splitlines() if line.strip()]
        raise Problem(f"{what} failed: " + " | ".join(lines[-2:]))


def prepare(peer):
    """Installs a peer and what it keeps its jobs in; returns the command of its program."""
    missing = [program for program in PROGRAMS[peer.kind] if not shutil.which(program)]
    if missing:
        raise Problem(f"{' and '.join(missing)} not found on PATH")
    PROVIDED[peer.keeps]()
    return {"npm": node, "pip": python, "go": go, "cargo": cargo}[peer.kind](peer)


def is_new(folder, lock):
    """Whether this lock file has been installed here, and a function that says it has."""
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    stamp = folder / "installed"
    return not stamp.exists() or stamp.read_text() != digest, lambda: stamp.write_text(digest)


def copied(peer):
    """Packages of npm are searched next to the program that imports them: it is copied to where they are installed."""
    for name in (peer.folder.name, "contract"):
        (BUILT / name).mkdir(parents=True, exist_ok=True)
        for file in (SOURCES / name).iterdir():
            if file.is_file():
                shutil.copy(file, BUILT / name / file.name)
    return BUILT / peer.folder.name


def node(peer):
    folder = copied(peer)
    wanted, installed = is_new(folder, folder / "package-lock.json")
    if wanted:
        run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], "npm ci", cwd=folder)
        installed()
    return ["node", folder / "peer.mjs"]


def python(peer):
    folder = BUILT / peer.folder.name
    folder.mkdir(parents=True, exist_ok=True)
    wanted, installed = is_new(folder, peer.folder / "requirements.txt")
    interpreter = folder / "venv/bin/python"
    if wanted or not interpreter.exists():
        run([sys.executable, "-m", "venv", "--clear", folder / "venv"], "making a virtual environment")
        words = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
        run([interpreter, *words, "-r", peer.folder / "requirements.txt"], "pip install")
        installed()
    return [interpreter, "-B", peer.folder / "peer.py"]


def go(peer):
    binary = BUILT / peer.folder.name / "peer"
    run(["go", "build", "-mod=readonly", "-o", binary, "."], "go build", cwd=peer.folder, env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": ""})
    return [binary]


def cargo(peer):
    target = BUILT / peer.folder.name
    # The caller's settings of this workspace are not this crate's.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("CARGO_PROFILE", "CARGO_BUILD_TARGET", "RUSTFLAGS"))}
    run(["cargo", "build", "--release", "--locked", "--target-dir", target], "cargo build", cwd=peer.folder, env=environment)
    return [target / "release/peer"]


def toolchains():
    """Versions of what runs the peers."""
    said = {}
    for name, command in {"node": ["node", "--version"], "go": ["go", "version"], "rustc": ["rustc", "--version"]}.items():
        if shutil.which(command[0]):
            text = subprocess.run(command, check=False, capture_output=True, text=True, cwd=Path("/")).stdout
            found = re.search(r"\d+(\.\d+)+", text)
            said[name] = found.group(0) if found else "unknown"
    return {**said, "python": ".".join(str(part) for part in sys.version_info[:3])}
