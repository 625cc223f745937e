"""Every script says what it does, refuses what it does not know, and does nothing in either case."""

import os
import re
import subprocess
import unittest
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent
# Each passes its arguments on to a program of others, whose help and exit codes they are.
RUNNERS = {"buf", "cargo-nextest", "grype", "helm", "kubectl", "nats-server", "node", "oasdiff", "spectral"}
# As RUNNERS for what it does not know: a filter of tests may be anything.
PASSES_ON = {"run-tests"}


def scripts():
    return sorted(path for path in SCRIPTS.iterdir() if path.is_file() and os.access(path, os.X_OK))


def run(path, *arguments):
    return subprocess.run([path, *arguments], check=False, capture_output=True, text=True, timeout=60,
                          stdin=subprocess.DEVNULL, cwd=SCRIPTS.parent)


class Arguments(unittest.TestCase):
    def test_help_is_there_and_names_the_script_or_what_it_does(self):
        self.assertGreater(len(scripts()), 30)
        for path in scripts():
            if path.name in RUNNERS:
                continue
            for word in ("--help", "-h"):
                with self.subTest(script=path.name, word=word):
                    done = run(path, word)
                    self.assertEqual(done.returncode, 0, done.stderr)
                    self.assertGreater(len(done.stdout), 60)
                    self.assertNotIn("#!", done.stdout)

    def test_what_is_unknown_is_64_and_is_named(self):
        for path in scripts():
            if path.name in RUNNERS | PASSES_ON:
                continue
            with self.subTest(script=path.name):
                done = run(path, "--no-such-option")
                self.assertEqual(done.returncode, 64, done.stdout + done.stderr)
                self.assertTrue(done.stderr or "usage" in done.stdout or path.name in done.stdout)

    def test_runners_say_in_their_head_that_they_run_something(self):
        for name in RUNNERS | PASSES_ON:
            head = (SCRIPTS / name).read_text()[:1500]
            self.assertTrue(re.search(r"ARGS|[Aa]rguments", head), name)


if __name__ == "__main__":
    unittest.main()
