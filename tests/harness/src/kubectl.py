#!/usr/bin/env python3
"""Stands for kubectl and the cluster behind it, for the pages' commands on Secrets. A Secret is a file of JSON in
$CLUSTER/secrets; $CLUSTER/mounted/NAME is where a pod has it, written as the kubelet writes a volume."""

import base64
import json
import os
import sys
from pathlib import Path

CLUSTER = Path(os.environ["CLUSTER"])


def mount(name, values):
    """Files are links into a directory that the link `..data` names, which is swapped."""
    folder = CLUSTER / "mounted" / name
    folder.mkdir(parents=True, exist_ok=True)
    version = f"..{len(list(folder.iterdir()))}-{os.getpid()}"
    (folder / version).mkdir()
    for key, value in values.items():
        path = folder / version / key
        path.touch(mode=0o640)
        path.write_bytes(base64.b64decode(value))
        if not (folder / key).is_symlink():
            (folder / key).symlink_to(Path("..data") / key)
    (folder / "..next").symlink_to(version)
    (folder / "..next").rename(folder / "..data")


def read(name):
    secret = CLUSTER / "secrets" / name
    return json.loads(secret.read_text()) if secret.exists() else {}


def get(name, path):
    key = path.removeprefix("jsonpath={.data.").removesuffix("}").replace("\\.", ".")
    sys.stdout.write(read(name)[key])


def patch(name, file):
    wanted = json.loads(Path(file).read_text())
    if set(wanted) != {"stringData"}:
        sys.exit("a patch has stringData")
    values = read(name)
    values.update({key: base64.b64encode(text.encode()).decode() for key, text in wanted["stringData"].items()})
    write(name, values, "patched")


def create(name, source):
    """As with --dry-run=client -o yaml; JSON is YAML."""
    key, file = source.removeprefix("--from-file=").split("=")
    data = {key: base64.b64encode(Path(file).read_bytes()).decode()}
    print(json.dumps({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}))


def apply(text):
    secret = json.loads(text)
    write(secret["metadata"]["name"], secret["data"], "configured")


def write(name, values, done):
    (CLUSTER / "secrets").mkdir(exist_ok=True)
    (CLUSTER / "secrets" / name).write_text(json.dumps(values))
    mount(name, values)
    print(f"secret/{name} {done}")


def main():
    words = sys.argv[1:]
    dry = ["--dry-run=client", "-o", "yaml"]
    if words[:1] == ["-n"] and words[2:4] == ["get", "secret"] and words[5:6] == ["-o"] and len(words) == 7:
        get(words[4], words[6])
    elif words[:1] == ["-n"] and words[2:4] == ["patch", "secret"] and words[5:8] == ["--type", "merge", "--patch-file"]:
        patch(words[4], words[8])
    elif words[:1] == ["-n"] and words[2:5] == ["create", "secret", "generic"] and words[7:] == dry:
        create(words[5], words[6])
    elif words == ["apply", "-f", "-"]:
        apply(sys.stdin.read())
    else:
        sys.exit(f"not one of the commands of the pages: kubectl {' '.join(words)}")


main()
