"""Tests of scripts/pinned_program.py: a script that provides a program is never taken for the program."""

import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent
ENDS_S = 60


class Scripts(unittest.TestCase):
    """Copies of one script that could call each other without an end."""

    def setUp(self):
        self.folders = []
        for _ in range(2):
            folder = tempfile.mkdtemp()
            self.addCleanup(shutil.rmtree, folder)
            for name in ("kubectl", "pinned_program.py"):
                shutil.copy(SCRIPTS / name, folder)
            self.folders.append(folder)

    def run_script(self, **environment):
        command = [str(SCRIPTS / "kubectl"), "--path"]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=ENDS_S, env={**os.environ, **environment})

    def test_a_script_that_is_named_as_the_program_is_refused(self):
        done = self.run_script(AGENTFORGE_KUBECTL=f"{self.folders[0]}/kubectl")
        self.assertEqual(done.returncode, 69)
        self.assertIn("AGENTFORGE_KUBECTL", done.stderr)

    def test_scripts_on_path_are_passed_over(self):
        done = self.run_script(PATH=os.pathsep.join([*self.folders, os.environ["PATH"]]))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn(str(Path(done.stdout.strip()).parent), self.folders)


if __name__ == "__main__":
    unittest.main()
