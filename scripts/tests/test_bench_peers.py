"""Tests of bench/peers/run: its help, its arithmetic, its pins, a whole run of one peer, and that an interrupted run leaves nothing."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
RUN = ROOT / "bench/peers/run"
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "bench/peers"))
from harness import measure, peers, report
from harness.process import processor_time

# The cheapest to install: wheels, and the server that other tests need anyway.
SMALLEST = "faststream"
ENDS_S = 120


def processes_of(folder):
    """Processes that name a folder in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in words:
                found.append((int(entry.name), words.replace(b"\0", b" ").decode(errors="replace")))
    return found


class Arithmetic(unittest.TestCase):
    def test_the_median_is_of_what_was_measured(self):
        self.assertEqual(measure.median_of([3, None, 1, 2]), 2)
        self.assertEqual(measure.median_of([4, 1, 2, 3]), 2.5)
        self.assertIsNone(measure.median_of([None]))

    def test_quantiles_are_measured_values(self):
        values = list(range(100, 0, -1))
        self.assertEqual([measure.quantile(values, q) for q in (0, 0.5, 0.99, 1)], [1, 51, 99, 100])

    def test_processor_time_counts_children_and_those_that_ended(self):
        burn = "import time\nwhile time.process_time() < 0.3: pass"
        child = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])\nprint(flush=True)\nsys.stdin.read()"
        process = subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            process.stdout.readline()
            self.assertGreaterEqual(processor_time({process.pid}), 0.25)
        finally:
            process.communicate()


class Report(unittest.TestCase):
    def side(self, name, *rounds):
        return measure.Side(name, f"{name} + Redis", "up to 1 s may be lost", "", {}, None, rounds=list(rounds))

    def test_rows_are_medians_the_fastest_first_and_the_floor_last(self):
        slow = self.side("slow", {"end_to_end_per_s": 10.0, "p50_ms": 1.0}, {"end_to_end_per_s": 30.0, "p50_ms": 3.0})
        fast = self.side("fast", {"end_to_end_per_s": 9_000.0, "floor_per_s": 20_000.0})
        rows = report.rows_of([slow, fast, self.side("failed")])
        self.assertEqual([row["name"] for row in rows], ["fast", "slow", "floor"])
        self.assertEqual([row["end_to_end_per_s"] for row in rows], [9_000, 20, 20_000])
        self.assertEqual(rows[1]["p50_ms"], 2)

    def test_the_table_says_what_is_durable_in_each_row(self):
        lines = report.table(report.rows_of([self.side("one", {"end_to_end_per_s": 12_345.6, "p99_ms": 1.234})])).splitlines()
        self.assertEqual(len(lines), 3)
        self.assertEqual(len({len(line) for line in lines}), 1)
        for cell in ("one + Redis", "12,346", "1.23", " - |", "up to 1 s may be lost"):
            self.assertIn(cell, lines[2])


class Peers(unittest.TestCase):
    def test_each_pins_its_version_and_has_a_lock_file(self):
        for peer in peers.PEERS:
            with self.subTest(peer.name):
                self.assertRegex(peer.version, r"^\d+\.\d+")
                lock = (peer.folder / peers.LOCKS[peer.kind]).read_text()
                self.assertIn(peer.version, lock)
                self.assertTrue(peer.commits)

    def test_each_has_its_row_in_the_readme(self):
        page = (ROOT / "bench/peers/README.md").read_text()
        for peer in peers.PEERS:
            self.assertRegex(page, rf"\n\| {re.escape(peer.title.split(' + ')[0])} \|")


class Command(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        # Postgres would have to reach it as another user.
        self.folder.chmod(0o711)

    def start(self, *words):
        command = [sys.executable, RUN, "--data-dir", self.folder, "--json", self.folder / "peers.json", *words]
        return subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def provided(self):
        if shutil.which("pip") is None and os.environ.get("CI", "").lower() not in ("true", "1"):
            self.skipTest("pip is not installed")

    def test_help_has_every_option_and_examples(self):
        said = subprocess.run([RUN, "--help"], check=True, capture_output=True, text=True).stdout
        for word in ("--count", "--rounds", "--only", "--json", "--data-dir", "--prepare", "examples:", "graphile-worker"):
            self.assertIn(word, said)

    def test_an_unknown_peer_is_refused_with_those_that_there_are(self):
        done = subprocess.run([RUN, "--only", "nothing"], check=False, capture_output=True, text=True)
        self.assertEqual(done.returncode, 2)
        self.assertIn("there is no nothing; there are agentforge", done.stderr)

    def test_a_run_measures_every_figure_and_leaves_only_its_result(self):
        self.provided()
        run = self.start("--only", SMALLEST, "--count", "200", "--rounds", "1", "--rate-seconds", "1")
        out, said = run.communicate(timeout=ENDS_S)
        self.assertEqual(run.returncode, 0, said)
        (row,) = json.loads((self.folder / "peers.json").read_text())["rows"]
        for figure in report.FIGURES:
            self.assertGreater(row[figure], 0, figure)
        self.assertEqual(row["versions"]["faststream"], peers.pinned(ROOT / "bench/peers/faststream", "faststream"))
        self.assertIn("FastStream + JetStream", out)
        self.assertEqual([path.name for path in self.folder.iterdir()], ["peers.json"])
        self.assertEqual(processes_of(self.folder), [])

    def test_an_interrupted_run_stops_its_servers_and_removes_their_data(self):
        self.provided()
        run = self.start("--only", SMALLEST, "--count", "5000000", "--rounds", "1")
        self.addCleanup(run.stdout.close)
        self.addCleanup(run.stderr.close)
        deadline = time.monotonic() + ENDS_S
        # Its command line has the folder too; a server makes it more.
        while len(processes_of(self.folder)) < 2:
            self.assertIsNone(run.poll(), "it ended before a server ran")
            self.assertLess(time.monotonic(), deadline, "no server ran")
            time.sleep(0.02)
        run.send_signal(signal.SIGINT)
        self.assertEqual(run.wait(ENDS_S), 130)
        self.assertEqual(list(self.folder.iterdir()), [])
        self.assertEqual(processes_of(self.folder), [])


if __name__ == "__main__":
    unittest.main()
