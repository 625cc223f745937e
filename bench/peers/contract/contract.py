"""What a peer's program has to do with the benchmark, as ../README.md describes it: args of jobs, and lines of its output."""

import json
import os
import sys
import time

# Libraries that greet on standard output greet in the log.
OUTPUT = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


class Call:
    """How the program was started."""

    def __init__(self):
        self.role = sys.argv[1]
        self.count, self.bytes, self.rate = (int(word) for word in sys.argv[2:5])
        self.url = os.environ["PEER_URL"]
        self.pad = "x" * max(0, self.bytes - len(json.dumps({"n": 10_000, "sent": time.time(), "pad": ""})))

    def args(self, n):
        """Args of a job, with the moment in which they are made."""
        return {"n": n, "sent": time.time(), "pad": self.pad}


def say(text):
    OUTPUT.write(f"{text}\n")
    OUTPUT.flush()


def ready():
    """Reports that everything is connected, and waits for the word to begin."""
    say("ready")
    sys.stdin.readline()


def finish(**result):
    """Reports the result, and waits until it has been read."""
    say(json.dumps(result))
    sys.stdin.read()
