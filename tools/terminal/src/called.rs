//! By which name a program is called: its own, or as commands of `agentforge`, which becomes it.

use clap::{ArgMatches, Command, CommandFactory, FromArgMatches};
use std::{ffi::OsString, path::Path};

/// The command that becomes other programs, and gives them its own name as the name they are called by.
const COMMAND: &str = "agentforge";

/// Parses the command line of a program; help and errors name the program as it was called. `own` is the program's own
/// name, `through` what is typed when `agentforge` becomes it.
///
/// # Errors
/// Help, or what is wrong with the command line.
pub fn parse<C: CommandFactory + FromArgMatches>(own: &str, through: &str) -> Result<C, clap::Error> {
    let words: Vec<OsString> = std::env::args_os().collect();
    let mut command = named(C::command(), words.first(), own, through);
    let found: ArgMatches = command.try_get_matches_from_mut(words)?;
    C::from_arg_matches(&found).map_err(|e| e.format(&mut command))
}

fn named(command: Command, called: Option<&OsString>, own: &str, through: &str) -> Command {
    let name = called.and_then(|called| Path::new(called).file_name());
    if name.is_some_and(|name| name == COMMAND) {
        return command.bin_name(through);
    }
    // Examples are written as most people type them; of the other commands of `agentforge` they stay so.
    let ours: Vec<String> = command.get_subcommands().map(|below| below.get_name().to_owned()).collect();
    with_examples(command, &|text| {
        ours.iter().fold(text, |text, below| text.replace(&format!("{through} {below}"), &format!("{own} {below}")))
    })
    .bin_name(own)
}

/// The command with another text below its help, and below that of each command of it.
fn with_examples(mut command: Command, change: &dyn Fn(String) -> String) -> Command {
    if let Some(text) = command.get_after_help().map(ToString::to_string) {
        command = command.after_help(change(text));
    }
    command.mut_subcommands(|below| with_examples(below, change))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help(called: &str) -> String {
        let wait = Command::new("wait").after_help("Examples:\n  agentforge bench wait\n  agentforge job list");
        let command = Command::new("agentforge-bench").subcommand(wait);
        let mut command = named(command, Some(&called.into()), "agentforge-bench", "agentforge bench");
        command.try_get_matches_from_mut([called, "wait", "--help"]).unwrap_err().to_string()
    }

    #[test]
    fn help_names_the_program_as_it_was_called() {
        for (called, typed) in [
            ("target/debug/agentforge", "agentforge bench wait"),
            ("agentforge", "agentforge bench wait"),
            ("target/debug/agentforge-bench", "agentforge-bench wait"),
            ("/service", "agentforge-bench wait"),
        ] {
            let help = help(called);
            assert!(help.contains(&format!("Usage: {typed}\n")), "{called}: {help}");
            assert!(help.contains(&format!("\n  {typed}\n  agentforge job list")), "{called}: {help}");
        }
    }
}
