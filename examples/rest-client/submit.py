#!/usr/bin/env python3
"""Submits a job by REST and prints its result.

  python3 submit.py TOOL [ARGS]      ARGS is a JSON object

AGENTFORGE_HTTP is the address of the REST API (http://127.0.0.1:8080), AGENTFORGE_TOKEN a token if the server asks for one.
Exit code 0: the job succeeded, 3: it did not, 1: there is no answer.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid

BASE = os.environ.get("AGENTFORGE_HTTP", "http://127.0.0.1:8080").rstrip("/")
FINAL = {"succeeded", "failed", "dead", "cancelled", "expired"}
# How long one submission may take, all its attempts included.
PATIENCE_SECONDS = 60


def call(method, path, body=None):
    """One request; its JSON answer. Raises urllib's errors."""
    headers = {"content-type": "application/json"}
    if token := os.environ.get("AGENTFORGE_TOKEN"):
        headers["authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(BASE + path, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=70) as answer:
        return json.load(answer)


def patiently(method, path, body=None):
    """Repeats a request that may be repeated, until the server takes it: it may restart, or be busy for a moment."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return call(method, path, body)
        except urllib.error.HTTPError as refused:
            if refused.code not in (429, 503) or time.monotonic() > give_up:
                problem = json.loads(refused.read() or b"{}")
                sys.exit(f"refused: {problem.get('code', refused.code)}: {problem.get('detail', refused.reason)}")
            wait = float(refused.headers.get("retry-after", 1))
        except OSError as broken:
            if time.monotonic() > give_up:
                sys.exit(f"no answer from {BASE}: {broken}")
            wait = 1
        time.sleep(wait)


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    # With a key of its own a submission can be repeated after a broken connection: it is stored once.
    submission = {
        "tool": sys.argv[1],
        "args": json.loads(sys.argv[2] if len(sys.argv) == 3 else "{}"),
        "idempotency_key": str(uuid.uuid4()),
    }
    job = patiently("POST", "/v1/jobs", submission)
    print(f"job {job['id']}", file=sys.stderr)
    # Each call waits on the server, so this is not a busy loop.
    while job["state"] not in FINAL:
        job = patiently("GET", f"/v1/jobs/{job['id']}?wait=30s")
    if job["state"] != "succeeded":
        print(f"{job['state']}: {job.get('error')}", file=sys.stderr)
        return 3
    # A large result is not part of the job; this returns it in any case.
    print(json.dumps(patiently("GET", f"/v1/jobs/{job['id']}/output")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
