"""Tests of scripts/check-english: each rule meets what it is for and leaves good English, places are exact, counts only fall."""

import importlib.machinery
import importlib.util
import tempfile
import unittest
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent.parent / "check-english"
loader = importlib.machinery.SourceFileLoader("check_english", str(SCRIPT))
english = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
loader.exec_module(english)

# Rule -> what it must find, and what it must leave.
EXAMPLES = {
    "is-no": (
        ["A tag is no digest.", "Zeros\nare no gaps."],
        ["There is no limit.", "It is no longer there or fuller.", "where there are no rows"],
    ),
    "told": (["It tells the caller.", "The gap is told."], ["Read more to tell the two runs apart.", "The kernel cannot tell whether it is open."]),
    "nobody": (["Nobody reads it."], ["No client reads it."]),
    "whoever": (["Whoever asks is answered."], ["Each caller is answered."]),
    "whatever": (["whatever dies on the way"], ["all that arrives"]),
    "stands": (["The key stands in the file."], ["A manifest stands for a file.", "The value stands still.", "a standby"]),
    "beside": (["a page beside the code"], ["besides, the page is next to it"]),
    "alone": (["read by threads alone", "on standard input alone."], ["It is left alone.", "Left alone", "It leaves the others alone.", "A job is alone there.", "a stand-alone page"]),
    "anew": (["is made anew"], ["renewed"]),
    "rate": (
        ["500 events a second", "40,000 publishes a\nsecond"],
        ["He sees a second try.", "the event, one second later"],
    ),
    "rate-of-each": (
        ["One JSON object a line", "two messages a job", "once a process"],
        ["one of a job's rows", "twice a day", "one has a job", "once a worker serves it", "between two checks a queue waits", "which of the two a scrape saw"],
    ),
    "goes-on": (["The loop goes on.", "went on without it"], ["It goes on disk and on to the next."]),
    "mend": (["Mend the page."], ["Amend the commit."]),
    "look": (["one look at the disk", "between looks", "at the next look"], ["It looks like it.", "Look at a look-alike."]),
    "shall": (["It shall stop."], ["It should stop, shallow as it is."]),
    "inside-of": (["inside of the task"], ["inside the task"]),
    "for-ever": (["It waits for ever."], ["for every one"]),
    "but-for": (["It takes nothing but for this."], ["not for them but for us"]),
    "heard-of": (["when it was heard of last"], ["when it was last heard from"]),
    "away": (["while NATS is away"], ["The file is away from the others."]),
    "put-right": (["The stream is put right."], ["Put the right one back."]),
    "come-again": (["The message comes again."], ["It becomes again what it was."]),
    "so-long": (["After so long it ends.", "at most so many"], ["for so long as it lasts"]),
    "is-there": (["until the PubAck is there.", "when both are there, it"], ["There is. What is there to do?"]),
}


def found(path, text):
    return [(f.line, f.found, f.rule.name) for f in english.findings_in(path, text)]


class Rules(unittest.TestCase):
    def test_each_rule_has_examples_and_finds_its_own_and_nothing_else(self):
        self.assertEqual({r.name for r in english.RULES}, set(EXAMPLES))
        for name, (bad, good) in EXAMPLES.items():
            for text in bad:
                self.assertEqual([n for _, _, n in found("a.md", text)], [name], text)
            for text in good:
                self.assertEqual([n for _, _, n in found("a.md", text) if n == name], [], text)

    def test_each_rule_says_what_to_write(self):
        for rule in english.RULES:
            self.assertTrue(rule.instead, rule.name)


class Readers(unittest.TestCase):
    def test_markdown_is_read_without_code_and_with_exact_lines(self):
        text = "# Told\n\nOne `told` in code, [a link](told.md) and\nit is\nno gap.\n\n```sh\necho told\n```\n\n| a | is |\n|---|---|\n| mend | b |\n"
        self.assertEqual(found("a.md", text), [(4, "is no", "is-no"), (13, "mend", "mend")])

    def test_rust_is_read_in_comments_and_literals_and_not_in_code(self):
        text = (
            "//! The desk is\n//! no table.\n"
            "fn told(nobody: &str) -> String {\n    let told = '\"'; // once a process\n"
            '    format!("nobody is \\\n     here")\n}\n'
            "/// ```\n/// told\n/// ```\n"
            '#[cfg(test)]\nmod tests {\n    const A: &str = "nobody is here";\n    // Nobody.\n}\n'
        )
        self.assertEqual(
            found("src/a.rs", text),
            [(1, "is no", "is-no"), (4, "once a process", "rate-of-each"), (5, "nobody", "nobody"), (14, "Nobody", "nobody")],
        )
        self.assertEqual(found("tests/a.rs", 'const A: &str = "nobody is here";\n'), [])

    def test_a_constant_is_read_too_and_a_single_word_is_not(self):
        self.assertEqual(found("src/a.rs", 'const A: &str = r#"he is "told" it"#;\n'), [(1, "told", "told")])
        self.assertEqual(found("src/a.rs", 'const A: &str = "told";\n'), [])

    def test_yaml_is_read_in_comments_and_in_what_people_are_shown(self):
        text = "# Nobody.\nexpr: nobody\nannotations:\n  summary: >\n    Site {{ $labels.told }}\n    was told\n  other: told\n"
        self.assertEqual(found("a.yml", text), [(1, "Nobody", "nobody"), (6, "told", "told")])

    def test_scripts_are_read_in_comments_and_in_what_they_print(self):
        self.assertEqual(found("a.sh", "told=1 # told\necho told\n$nobody\n"), [(1, "told", "told"), (2, "told", "told")])
        python = '#!/usr/bin/env python3\n"""He\nis told."""\ntold = 1  # nobody\n'
        self.assertEqual(found("tool", python), [(3, "told", "told"), (4, "nobody", "nobody")])

    def test_a_file_without_prose_is_left(self):
        self.assertEqual(found("a.json", '{"told": "nobody"}'), [])


class OptOut(unittest.TestCase):
    def test_a_reason_excuses_its_line_and_the_next(self):
        self.assertEqual(found("a.md", "It is told. <!-- english: a quotation -->\n"), [])
        self.assertEqual(found("a.rs", "// english: a quotation\n// It is told.\n"), [])

    def test_without_a_reason_or_without_need_it_is_a_finding(self):
        self.assertEqual([n for _, _, n in found("a.rs", "// told\n// english:\n// told\n")], ["told", "opt-out"])
        self.assertEqual([n for _, _, n in found("a.rs", "// english: because\n// fine\n")], ["opt-out"])


class Ratchet(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name).resolve()
        (self.root / "scripts").mkdir()
        (self.root / "a.sh").write_text("# told\n# nobody\n")
        english.update(self.root)

    def test_what_is_allowed_passes_and_one_more_fails(self):
        self.assertEqual(english.gate(self.root), [])
        (self.root / "a.sh").write_text("# told\n# nobody\n# anew\n")
        self.assertIn('a.sh:3: "anew" (anew); write: again; recreated, restarted', english.gate(self.root))
        (self.root / "b.sh").write_text("# told\n")
        self.assertTrue(any(line.startswith("b.sh:1:") for line in english.gate(self.root)))

    def test_a_baseline_above_the_truth_fails_until_it_is_lowered(self):
        (self.root / "a.sh").write_text("# told\n")
        self.assertEqual(english.gate(self.root), ["a.sh: 1 findings, 2 allowed: run scripts/check-english --update"])
        english.update(self.root)
        self.assertEqual((english.gate(self.root), english.read_baseline(self.root)), ([], {"a.sh": 1}))

    def test_a_file_may_move_and_the_sum_may_not_rise(self):
        (self.root / "a.sh").rename(self.root / "b.sh")
        self.assertEqual(len(english.gate(self.root)), 4)
        english.update(self.root)
        self.assertEqual(english.gate(self.root), [])
        (self.root / "c.sh").write_text("# told\n")
        with self.assertRaises(english.Problem):
            english.update(self.root)

    def test_documents_are_never_in_the_baseline(self):
        (self.root / "a.md").write_text("Nobody.\n")
        (self.root / "a.sh").write_text("# told\n")
        english.update(self.root)
        self.assertEqual(english.read_baseline(self.root), {"a.sh": 1})
        self.assertTrue(any(line.startswith("a.md:1:") for line in english.gate(self.root)))

    def test_generated_pages_and_other_peoples_folders_are_left(self):
        for path in ("target/a.md", ".git/a.md", "docs/METRICS.md"):
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_text("told\n")
        self.assertEqual(english.gate(self.root), [])


if __name__ == "__main__":
    unittest.main()
