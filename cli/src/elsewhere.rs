//! Commands that are programs of their own: this program becomes them, so that it need not hold every service.
//!
//! Decides by the words of the command line, before they are parsed: their options and help are theirs.

use agentforge_terminal::{Failure, become_program, command_of, find_program};
use clap::Command;
use std::{ffi::OsString, process};

/// Starts everything on this machine, and knows what it is made of.
const STACK: &str = "agentforge-stack";
/// The program behind `agentforge bench`; it is not part of the images.
const BENCH: &str = "agentforge-bench";
/// Proves that changes are safe; it is not part of the images.
const GOVERNANCE: &str = "agentforge-governance";
/// The commands, and whose they are.
const COMMANDS: [(&str, &str); 13] = [
    ("dev", STACK),
    ("link", STACK),
    ("backup", STACK),
    ("restore", STACK),
    ("user", STACK),
    ("settings", STACK),
    ("metrics-catalogue", STACK),
    ("openapi", STACK),
    ("webhook-sink", STACK),
    ("example-tool", STACK),
    ("bench", BENCH),
    ("governance", GOVERNANCE),
    ("seed", GOVERNANCE),
];
/// Commands that stand for all that a program has: it has no word for them.
const WHOLE: [&str; 2] = ["bench", "governance"];
/// Options of every command that have a value.
const WITH_VALUE: [&str; 3] = ["--server", "--token", "--request-timeout"];

/// A program that has the command, and the words that it is given.
#[derive(Debug, PartialEq, Eq)]
pub struct Elsewhere {
    program: &'static str,
    words: Vec<OsString>,
}

impl Elsewhere {
    /// Of the words behind this program's name; `None` when the command is one of ours.
    pub fn of(words: &[OsString]) -> Option<Self> {
        let mut at = 0;
        while words.get(at)?.to_str().is_some_and(|word| word.len() > 2 && word.starts_with("--")) {
            at += if words[at].to_str().is_some_and(|word| WITH_VALUE.contains(&word)) { 2 } else { 1 };
        }
        let (command, program) =
            COMMANDS.iter().find(|(command, _)| words.get(at).is_some_and(|word| word == command))?;
        let left_out = WHOLE.contains(command);
        let words = words.iter().enumerate().filter(|(n, _)| !left_out || *n != at).map(|(_, word)| word.clone());
        Some(Self { program, words: words.collect() })
    }

    /// Becomes it; returns only when that fails.
    pub fn run(self, called: &OsString) -> Failure {
        match find_program(self.program) {
            Ok(file) => become_program(&file, called, self.words),
            Err(failure) => failure,
        }
    }
}

/// The command line with the options of those programs that exist, for completion in a shell.
pub fn completed(mut command: Command) -> Command {
    for program in [STACK, BENCH, GOVERNANCE] {
        let Some(described) = described(program) else { continue };
        for (name, _) in COMMANDS.iter().filter(|(_, of)| *of == program) {
            let below = if WHOLE.contains(name) {
                described.clone().name(*name)
            } else if let Some(below) = described.find_subcommand(name) {
                below.clone()
            } else {
                continue;
            };
            command = command.mut_subcommand(name, |_| below);
        }
    }
    command
}

fn described(program: &str) -> Option<Command> {
    let said = process::Command::new(find_program(program).ok()?).arg("describe").output().ok()?;
    command_of(&serde_json::from_slice(&said.stdout).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn a_command_of_another_program_is_known_behind_options() {
        for (given, program, passed) in [
            ("dev --edge --json", STACK, "dev --edge --json"),
            ("--server http://h:1 --json dev --help", STACK, "--server http://h:1 --json dev --help"),
            ("--json bench jobs --rounds 1", BENCH, "--json jobs --rounds 1"),
            ("--token=x settings", STACK, "--token=x settings"),
            ("--json governance alerts lint", GOVERNANCE, "--json alerts lint"),
            ("seed --dry-run", GOVERNANCE, "seed --dry-run"),
        ] {
            let wanted = Elsewhere { program, words: words(passed) };
            assert_eq!(Elsewhere::of(&words(given)), Some(wanted), "{given}");
        }
        for ours in ["", "job list", "--server dev job list", "--help", "completions dev", "-- dev"] {
            assert_eq!(Elsewhere::of(&words(ours)), None, "{ours}");
        }
    }

    #[test]
    fn every_command_of_another_program_is_in_our_help() {
        use clap::CommandFactory;
        let cli = crate::args::Cli::command();
        for (command, _) in COMMANDS {
            assert!(cli.find_subcommand(command).is_some(), "{command}");
        }
    }
}
