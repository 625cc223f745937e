"""What pipelines run, with small programs in place of the registries and scanners of others: what it makes, and how it ends."""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
GRYPE = """#!/bin/sh
for argument in "$@"; do case "$argument" in
    json=*) printf '%s' "$FOUND" > "${argument#json=}" ;;
    sarif=*) echo '{}' > "${argument#sarif=}" ;;
esac; done
"""
SKOPEO = """#!/bin/sh
[ -z "$AWAY" ] || { echo "no route to host" >&2; exit 1; }
for name in "$@"; do :; done
printf 'manifest of %s' "$name"
"""
DOCKER = """#!/bin/sh
printf '%s|' "$@" > "$WRITES"
cat >> "$WRITES"
exit "${REFUSES:-0}"
"""


def weakness(severity):
    return {"matches": [{"vulnerability": {"severity": severity, "id": "CVE-1", "fix": {"versions": ["2"]}},
                         "artifact": {"name": "shoe", "version": "1"}}]}


class Pipelines(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)

    def program(self, name, text):
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def run_script(self, script, *arguments, **environment):
        environment = {**os.environ, "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", **environment}
        return subprocess.run([script, *arguments], check=False, capture_output=True, text=True, env=environment)

    def test_a_high_weakness_fails_the_scan_and_a_low_one_does_not(self):
        grype = str(self.program("grype", GRYPE))
        for severity, code in (("Low", 0), ("High", 1), ("Critical", 1)):
            out = self.folder / severity
            done = self.run_script(ROOT / "scripts/scan", "--output", str(out), "registry.example/a:1",
                                   AGENTFORGE_GRYPE=grype, FOUND=json.dumps(weakness(severity)))
            self.assertEqual(done.returncode, code, done.stderr)
            self.assertEqual("CVE-1 in shoe 1, fixed in 2" in done.stdout, code == 1, done.stdout)
            for name in ("sbom.cdx.json", "sbom.sarif", "registry.example-a-1.sarif"):
                self.assertTrue((out / name).is_file(), name)

    def test_a_scan_that_could_not_look_finds_nothing_and_says_so(self):
        for grype in (self.folder / "none", self.program("grype", "#!/bin/sh\nexit 1\n")):
            done = self.run_script(ROOT / "scripts/scan", "--output", str(self.folder / "out"), AGENTFORGE_GRYPE=str(grype))
            self.assertEqual(done.returncode, 69, done.stdout)

    def copy(self):
        copy = self.folder / "copy"
        (copy / "scripts").mkdir(parents=True)
        for file in ("Containerfile", "compose.yaml", "scripts/base-images"):
            shutil.copy(ROOT / file, copy / file)
        return copy

    def test_base_images_get_the_digest_of_the_day_and_keep_their_tag(self):
        copy = self.copy()
        self.program("skopeo", SKOPEO)
        script = copy / "scripts/base-images"
        listed = self.run_script(script).stdout
        self.assertGreater(len(listed.splitlines()), 5)
        done = self.run_script(script, "--update")
        self.assertEqual(done.returncode, 0, done.stderr)
        for line in listed.splitlines():
            file, image = line.split(" ")[0].rstrip(":"), line.split(" ")[1]
            digest = hashlib.sha256(f"manifest of docker://{image}".encode()).hexdigest()
            self.assertIn(f"{image}@sha256:{digest}", (copy / file).read_text())
        # Nothing but that changes, and a second run finds nothing to change.
        self.assertEqual((copy / "Containerfile").read_text().count("\n"), (ROOT / "Containerfile").read_text().count("\n"))
        self.assertEqual(self.run_script(script, "--update").stdout, "")

    def test_a_registry_that_does_not_answer_changes_no_file(self):
        copy = self.copy()
        self.program("skopeo", SKOPEO)
        done = self.run_script(copy / "scripts/base-images", "--update", AWAY="1")
        self.assertEqual(done.returncode, 69)
        self.assertIn("no route to host", done.stderr)
        self.assertEqual((copy / "Containerfile").read_text(), (ROOT / "Containerfile").read_text())

    def test_the_password_of_a_registry_is_on_no_command_line(self):
        given_to = self.folder / "given_to"
        self.program("docker", DOCKER)
        given = {"REGISTRY": "registry.example/team", "REGISTRY_USER": "builder", "REGISTRY_PASSWORD": "hush", "WRITES": str(given_to)}
        done = self.run_script(ROOT / "scripts/registry-login", ENGINE="docker", **given)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(given_to.read_text(), "login|--username|builder|--password-stdin|registry.example|hush")
        self.assertEqual(self.run_script(ROOT / "scripts/registry-login", REFUSES="1", ENGINE="docker", **given).returncode, 69)
        given["REGISTRY_PASSWORD"] = ""
        self.assertEqual(self.run_script(ROOT / "scripts/registry-login", **given).returncode, 64)


if __name__ == "__main__":
    unittest.main()
