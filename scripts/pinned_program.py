"""Finds a program that is new enough, and provides a pinned one where there is none.

Order: what the environment names, then PATH, then the cache, then the pinned wheel through pip; for a program whose
reports depend on its version the pinned one goes before PATH. What pip brings is taken only when wheel and binary
have the written checksums. Used by the scripts named for the programs.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path

# Added to the name of the cache's folder of versions that are asked for by number.
OTHERS = "-others"
# Set for a program that is asked for its version.
ASKED = "AGENTFORGE_PROGRAM_ASKED"


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
    member: str  # the binary inside the wheel; {version} is replaced by the version
    pinned: dict  # (system, machine) -> (SHA-256 of the wheel, SHA-256 of the binary inside)
    script: str
    others: dict = field(default_factory=dict)  # more versions that are pinned, each as `pinned`
    shelf: str = ""  # added to the name of the cache's folder
    module: str = ""  # the Go module whose program it is, for versions that are pinned nowhere
    sums: dict = field(default_factory=dict)  # version -> the checksum of the module's source
    exact: bool = False  # what it reports depends on its version, so the pinned one goes before PATH

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
            # A script of this kind that is taken for the program would look for it in turn, without an end.
            asked = {**os.environ, ASKED: "1"}
            out = subprocess.run(command, check=False, capture_output=True, text=True, timeout=20, env=asked)
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
            done = subprocess.run(pip, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            wheels = list(Path(folder).glob("*.whl"))
            if done.returncode != 0 or len(wheels) != 1:
                tail = "\n  ".join(done.stdout.strip().splitlines()[-3:])
                raise Problem(f"pip could not provide {self.package} {self.version}:\n  {tail}\n{self.install}")
            self.check(wheels[0], wheel_sum, "the wheel")
            fresh = Path(folder) / self.name
            member = self.member.format(version=self.version)
            with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(member) as source, open(fresh, "wb") as target:
                shutil.copyfileobj(source, target)
                target.flush()
                os.fsync(target.fileno())
            self.check(fresh, binary_sum, "the binary")
            fresh.chmod(fresh.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
            # A rename on one file system: a concurrent run sees all of the file or none of it.
            os.replace(fresh, home / self.name)
        return home / self.name

    def check(self, path, wanted, what):
        found = sha256(path)
        if found != wanted:
            raise Problem(f"SHA-256 of {what} is {found}, expected {wanted}. It was not installed.\n{self.install}")

    def find(self):
        chosen = self.chosen_by_user()
        if chosen:
            return chosen
        if not self.exact:
            return self.on_path() or self.find_pinned()
        try:
            return self.find_pinned()
        except Problem:
            found = self.on_path()
            if found:
                return found
            raise

    def find_pinned(self):
        """The pinned version, regardless of other versions on this machine."""
        here = (platform.system(), platform.machine())
        if here not in self.pinned:
            raise Problem(
                f"No {self.name} found, and none is pinned with a checksum for {here[0]} on {here[1]}.\n{self.install}"
            )
        wheel_sum, binary_sum = self.pinned[here]
        home = self.home(self.version)
        return self.cached(home, binary_sum) or self.provide(home, wheel_sum, binary_sum)

    def home(self, version, shelf=""):
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return caches / "agentforge" / (self.name + (shelf or self.shelf)) / version

    def of(self, wanted):
        """A binary of the wanted version, such as 2.14.6, or of the newest pinned one of a series, such as 2.14."""
        every = {**self.others, self.version: self.pinned}
        numbers = lambda version: tuple(int(n) for n in version.split("."))
        if not re.fullmatch(r"\d+(\.\d+){0,2}", wanted):
            raise Problem(f"{wanted} is not a version; give one such as {self.version}, or a series such as 2.14.")
        matching = [v for v in every if numbers(v)[: len(numbers(wanted))] == numbers(wanted)]
        if matching:
            version = max(matching, key=numbers)
            # Apart from the one that everybody uses: who looks into the cache takes the newest.
            shelf = "" if version == self.version else OTHERS
            return replace(self, version=version, pinned=every[version], shelf=shelf).find_pinned()
        if len(numbers(wanted)) < 3 or not self.module:
            raise Problem(f"No version {wanted} is pinned (there are {', '.join(sorted(every, key=numbers))}).")
        return self.build(wanted)

    def built(self, version):
        """The binary that Go built before, or None."""
        binary = self.home(version, OTHERS) / self.name
        return binary if self.version_of(binary) == tuple(int(n) for n in version.split(".")) else None

    def from_source(self, version):
        """The binary of a version whose source has the written checksum, built now: no earlier file is trusted. The
        checksums of what it imports are in that source (go.sum), and Go verifies them."""
        if shutil.which("go"):
            ask = ["go", "mod", "download", "-json", f"{self.module}@v{version}"]
            done = subprocess.run(ask, check=False, capture_output=True, text=True, cwd=tempfile.gettempdir())
            found = json.loads(done.stdout or "{}")
            if done.returncode != 0 or "Sum" not in found:
                raise Problem(f"Go could not get {self.module} {version}: {found.get('Error') or done.stderr.strip()}")
            if found["Sum"] != self.sums[version]:
                raise Problem(f"The source of {self.module} {version} is {found['Sum']}, expected {self.sums[version]}.")
        return self.build(version, is_fresh=True)

    def build(self, version, is_fresh=False):
        """Builds a version that is pinned nowhere. Go compares the module with its checksum database."""
        if not is_fresh and (binary := self.built(version)):
            return binary
        home = self.home(version, OTHERS)
        binary = home / self.name
        if not shutil.which("go"):
            raise Problem(f"{self.name} {version} is not pinned, and there is no Go to build it. {self.install}")
        print(f"{self.name}: building version {version} with Go", file=sys.stderr)
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".incoming-", dir=home) as folder:
            go = ["go", "install", f"{self.module}@v{version}"]
            environment = {**os.environ, "GOBIN": folder, "GOFLAGS": "", "CGO_ENABLED": "0"}
            done = subprocess.run(
                go, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
            )
            if done.returncode != 0:
                tail = "\n  ".join(done.stdout.strip().splitlines()[-3:])
                raise Problem(f"Go could not build {self.module} {version}:\n  {tail}\n{self.install}")
            os.replace(Path(folder) / self.name, binary)
        return binary

    def main(self, arguments):
        """`--path` prints the path of the binary; anything else runs it. Returns the exit code of a failure."""
        if ASKED in os.environ:
            print(f"{self.name}: a script that provides {self.what}, not the program", file=sys.stderr)
            return 69
        try:
            if arguments[:1] == ["--of"] and len(arguments) > 1:
                binary, arguments = self.of(arguments[1]), arguments[2:]
            else:
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
