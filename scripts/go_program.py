"""Finds a program that Go builds at one pinned version: from the environment or the cache, and only when asked to, from
its module, which Go compares with its checksum database. Tests compare with its reports, so no other version will do."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def main(name, module, version, arguments):
    """`--path` prints where it is, `--build` builds it first if it is missing, anything else runs it."""
    variable = "AGENTFORGE_" + name.upper()
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = caches / "agentforge" / f"{name}-others" / version
    binary = Path(os.environ.get(variable) or home / name)
    if arguments[:1] == ["--build"] and not binary.is_file():
        if not shutil.which("go"):
            print(f"{name}: there is no Go to build {module} {version}; or set {variable}", file=sys.stderr)
            return 69
        print(f"{name}: building version {version} with Go (once, minutes)", file=sys.stderr)
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".incoming-", dir=home) as folder:
            environment = {**os.environ, "GOBIN": folder, "GOFLAGS": "-p=2", "CGO_ENABLED": "0"}
            done = subprocess.run(["go", "install", f"{module}@v{version}"], check=False, env=environment, cwd=folder)
            if done.returncode != 0:
                print(f"{name}: Go could not build {module} {version}", file=sys.stderr)
                return 69
            os.replace(Path(folder) / name, binary)
    if not (binary.is_file() and os.access(binary, os.X_OK)):
        print(f"{name}: {version} is not built: run scripts/{name} --build (Go, minutes), or set {variable}", file=sys.stderr)
        return 69
    if arguments in (["--path"], ["--build"]):
        print(binary)
        return 0
    os.execv(binary, [str(binary), *arguments])
