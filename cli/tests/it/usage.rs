//! What needs no server: help, wrong command lines, completions, settings, closed pipes.

use super::support::{agentforge, agentforge_reads, command, feed, said};
use serde_json::Value;
use std::{collections::BTreeSet, io::Read, process::Stdio};

/// The commands that a help text lists.
fn listed(help: &str) -> Vec<String> {
    let section = help.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    section.filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn every_command_has_help_and_every_leaf_has_an_example() {
    let mut leaves = 0;
    let mut open = vec![Vec::<String>::new()];
    while let Some(path) = open.pop() {
        let mut args = path.clone();
        args.push("--help".to_owned());
        let said = agentforge(&args);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{path:?}");
        assert!(said.out.contains("--json"), "{path:?} tells of --json:\n{}", said.out);
        let below = listed(&said.out);
        if below.is_empty() {
            leaves += 1;
            let example = format!("\n  agentforge {}", path.join(" "));
            let examples = said.out.split_once("Examples:").map(|(_, e)| e).unwrap_or_default();
            let shown = examples.contains(&example) || examples.contains(&format!("agentforge {}", path.join(" ")));
            assert!(shown, "{path:?} has no example:\n{}", said.out);
        }
        open.extend(below.into_iter().map(|name| [path.clone(), vec![name]].concat()));
    }
    assert!(leaves >= 20, "only {leaves} commands were found");
}

#[test]
fn programs_name_themselves_as_they_were_called() {
    for (program, through, below) in
        [("agentforge-stack", "agentforge", "dev"), ("agentforge-bench", "agentforge bench", "jobs")]
    {
        let file = agentforge_harness::cargo_bin(program);
        let direct = |args: &[&str]| said(std::process::Command::new(&file).args(args).output().unwrap()).out;
        let words: Vec<&str> = through.split(' ').skip(1).chain([below, "--help"]).collect();
        for (help, name) in [(direct(&[below, "--help"]), program), (agentforge(&words).out, through)] {
            assert!(help.contains(&format!("\nUsage: {name} {below} ")), "{name}: {help}");
            assert!(help.contains(&format!("\n  {name} {below}")), "{name} has an example: {help}");
        }
        assert!(direct(&["--help"]).contains(&format!("\nUsage: {program} ")), "{program}");
        assert!(direct(&["--version"]).starts_with(&format!("{program} ")), "{program}");
    }
}

#[test]
fn wrong_command_lines_end_with_2_and_say_why_on_stderr() {
    for (args, part) in [
        (&["jobs"][..], "unrecognized subcommand"),
        (&["job"], "Usage"),
        (&["job", "submit"], "TOOL"),
        (&["job", "submit", "echo", "{not json"], "not JSON"),
        (&["job", "submit", "echo", "[1]"], "not an object"),
        (&["job", "submit", "echo", "@/no/such/file"], "/no/such/file"),
        (&["job", "submit", "echo", "--timeout", "soon"], "30s"),
        (&["job", "submit", "echo", "--run-at", "tomorrow"], "+10m"),
        (&["job", "submit", "echo", "--id", "7"], "UUID"),
        (&["job", "submit", "echo", "--label", "blue"], "team=blue"),
        (&["job", "submit", "echo", "--max-attempts", "101"], "1..=100"),
        (&["job", "submit", "--batch", "/no/such/file"], "/no/such/file"),
        (&["job", "submit", "echo", "{}", "--batch", "-"], "cannot be used"),
        (&["job", "list", "-o", "colour"], "labels"),
        (&["job", "list", "--state", "done"], "succeeded"),
        (&["job", "list", "--all", "--limit", "3"], "cannot be used"),
        (&["dlq", "redrive"], "IDS"),
        (&["dlq", "redrive", "--all", "--rate", "0"], "1000"),
        (&["schedule", "create", "n", "echo"], "--cron"),
        (&["agent", "list", "--status", "gone"], "offline"),
        (&["--server", "ftp://x", "agent", "list"], "http://127.0.0.1:50051"),
        (&["dev", "--port-base", "65535"], "--port-base 65535 is too high"),
        (&["dev", "--store", "mysql://x"], "postgres://"),
        (&["completions", "tcsh"], "bash"),
        (&["token", "new", "ci", "--role", "root"], "submitter"),
        (&["token", "new", "c i", "--role", "viewer"], "letters"),
        (&["token", "new", "ci", "--role", "viewer", "--scope", "room:a"], "queue"),
        (&["token", "new", "ci", "--role", "viewer", "--expires", "2020-01-31T00:00:00Z"], "has passed"),
    ] {
        let said = agentforge(args);
        assert_eq!(said.code, 2, "{args:?}: {}{}", said.out, said.err);
        assert!(said.err.contains(part), "{args:?} should say {part:?}: {}", said.err);
        assert_eq!(said.out, "", "{args:?}");
    }
}

#[test]
fn a_server_that_is_away_is_one_line_and_a_hint() {
    let said = agentforge(["--server", "http://127.0.0.1:1", "job", "list"]);
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    let lines: Vec<_> = said.err.lines().collect();
    assert_eq!(lines.len(), 2, "{}", said.err);
    assert!(lines[0].starts_with("error: listing jobs failed") && lines[0].contains("127.0.0.1:1"), "{}", lines[0]);
    assert!(lines[0].contains("refused"), "{}", lines[0]);
    assert!(lines[1].starts_with("hint: ") && lines[1].contains("agentforge dev"), "{}", lines[1]);
    assert!(!said.err.contains('\u{1b}'), "no colours without a terminal");
}

#[test]
fn with_json_errors_are_json_too() {
    let said = agentforge(["--json", "--server", "127.0.0.1:1", "agent", "get", "x"]);
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    let error: Value = serde_json::from_str(&said.err).unwrap();
    assert_eq!(error["error"]["code"], "unreachable");
    assert!(error["error"]["hint"].as_str().unwrap().contains("--server"));
}

#[test]
fn a_token_is_never_shown() {
    for args in [&["--help"][..], &["job", "list", "--help"], &["--server", "127.0.0.1:1", "job", "list"]] {
        let said = said(command().env("AGENTFORGE_TOKEN", "open-sesame-0123456789").args(args).output().unwrap());
        assert!(!said.out.contains("sesame") && !said.err.contains("sesame"), "{args:?}: {}{}", said.out, said.err);
    }
    let said = agentforge(["--token", "bad token", "job", "list"]);
    assert_eq!(said.code, 2);
}

#[test]
fn a_new_token_is_shown_once_and_its_line_has_no_more_than_its_digest() {
    use sha2::Digest;
    let new = |name: &str| {
        agentforge(["--json", "token", "new", name, "--role", "submitter", "--expires", "+1h", "--scope", "queue:a"])
            .ok()
    };
    let (one, two) = (new("ci"), new("ci"));
    let token = one["token"].as_str().unwrap();
    assert!(token.starts_with("af_") && token.len() == 46 && one["token"] != two["token"], "{token}");
    let line = one["line"].as_str().unwrap();
    let digest = hex::encode(sha2::Sha256::digest(token));
    assert!(
        line.starts_with(&format!("ci submitter sha256:{digest} expires=2")) && line.ends_with(" scope=queue:a"),
        "{line}"
    );
    assert!(!line.contains(&token[3..]), "{line}");
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let said = agentforge(["completions", shell]);
        assert_eq!(said.code, 0, "{shell}");
        for word in ["agentforge", "redrive", "idempotency-key"] {
            assert!(said.out.contains(word), "{shell} knows {word}");
        }
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    for args in [&["settings"][..], &["completions", "bash"], &["--help"]] {
        let mut child = command().args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        let status = child.wait().unwrap();
        assert_eq!((status.code(), err.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn settings_tell_every_variable_in_three_forms() {
    let json = agentforge(["settings", "--json"]).ok();
    let groups = json["groups"].as_array().unwrap();
    let settings: Vec<&Value> = groups.iter().flat_map(|g| g["settings"].as_array().unwrap()).collect();
    let (markdown, help) = (agentforge(["settings", "--markdown"]), agentforge(["settings"]));
    for key in
        ["NATS_URL", "HTTP_PORT", "GRPC_PORT", "METRICS_PORT", "DATABASE_URL", "WORKER_CONCURRENCY", "API_TOKENS"]
    {
        assert!(settings.iter().any(|s| s["key"] == key), "{key} in JSON");
        assert!(markdown.out.contains(&format!("| `{key}` |")), "{key} in Markdown");
        assert!(help.out.contains(&format!("  {key}\n")), "{key} in text");
    }
    let count = |key: &str| settings.iter().filter(|s| s["key"] == key).count();
    assert_eq!((count("NATS_URL"), count("ENV")), (1, 1), "what all services share stands once");
    let ports: BTreeSet<&str> =
        settings.iter().filter(|s| s["key"] == "HTTP_PORT").map(|s| s["default"].as_str().unwrap()).collect();
    assert!(ports.len() >= 5 && ports.len() == count("HTTP_PORT"), "each service has its own default: {ports:?}");
    // A default that the code declares is not a secret; the second one holds only with ENV=dev.
    let defaults = settings.iter().filter(|s| s["secret"] == true && !s["default"].is_null());
    let defaults: Vec<_> = defaults.map(|s| (s["key"].as_str().unwrap(), s["default"].as_str().unwrap())).collect();
    assert_eq!(
        defaults,
        [
            ("DATABASE_URL", "sqlite://agentforge.db"),
            ("EVIDENCE_SIGNING_SECRET", "dev-secret-that-everybody-knows"),
            ("DATABASE_URL", "sqlite://console.db")
        ]
    );
}

#[test]
fn the_catalogue_of_metrics_is_a_page() {
    let said = agentforge(["metrics-catalogue", "--markdown"]);
    assert_eq!(said.code, 0);
    for name in ["agentforge_jobs_submitted_total", "agentforge_job_end_to_end_seconds", "agentforge_worker_inflight"] {
        assert!(said.out.contains(&format!("| `{name}` |")), "{name}");
    }
}

#[test]
fn the_example_tool_speaks_json() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("a.txt"), "one\ntwo\n").unwrap();
    let said = feed(command().current_dir(home.path()).args(["example-tool", "digest"]), r#"{"path":"a.txt"}"#);
    let found = said.ok();
    assert_eq!((found["bytes"].as_u64(), found["lines"].as_u64()), (Some(8), Some(2)));
    for input in ["", "{}", r#"{"path":"../x"}"#, r#"{"path":"/etc/passwd"}"#, r#"{"path":"missing"}"#] {
        let said = agentforge_reads(["example-tool", "digest"], input);
        assert_eq!((said.code, said.out.as_str()), (1, ""), "{input}");
        assert!(said.err.starts_with("error: "), "{input}: {}", said.err);
    }
}

#[test]
fn a_child_without_its_parent_does_not_start() {
    let mut stack = std::process::Command::new(agentforge_harness::cargo_bin("agentforge-stack"));
    let said = said(stack.args(["run-child", "--parent", "1", "--", "/bin/echo", "alive"]).output().unwrap());
    assert_eq!((said.code, said.out.as_str()), (1, ""));
}

#[test]
fn a_backup_that_is_not_there_is_told() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let file = home.path().join("none.db");
    let args = ["restore".as_ref(), "--from".as_ref(), file.as_os_str(), "--data-dir".as_ref(), data.as_os_str()];
    let said = agentforge(args);
    assert_eq!(said.code, 1, "{}{}", said.out, said.err);
    assert!(said.err.starts_with("error: the restore failed") && said.err.contains("hint:"), "{}", said.err);
}
