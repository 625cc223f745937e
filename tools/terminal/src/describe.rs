//! The commands and options of a program as JSON, so that another program can complete them in a shell.

use clap::{Arg, ArgAction, Command, ValueHint};
use serde_json::{Value, json};

/// A command with its options and those below it; hidden ones are left out.
pub fn describe(command: &Command) -> Value {
    let args = command.get_arguments().filter(|arg| !arg.is_hide_set()).map(|arg| {
        let values: Vec<String> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        json!({
            "id": arg.get_id().as_str(),
            "long": arg.get_long(),
            "short": arg.get_short(),
            "help": arg.get_help().map(ToString::to_string),
            "takes_value": arg.get_action().takes_values(),
            "many": matches!(arg.get_action(), ArgAction::Append),
            "values": values,
            "path": matches!(arg.get_value_hint(), ValueHint::AnyPath | ValueHint::FilePath | ValueHint::DirPath),
        })
    });
    let below = command.get_subcommands().filter(|below| !below.is_hide_set()).map(describe);
    json!({
        "name": command.get_name(),
        "about": command.get_about().map(ToString::to_string),
        "args": args.collect::<Vec<_>>(),
        "commands": below.collect::<Vec<_>>(),
    })
}

/// The command that [`describe`] described, good for completion; `None` of anything else.
pub fn command_of(described: &Value) -> Option<Command> {
    let mut command = Command::new(kept(&described["name"])?);
    if let Some(about) = kept(&described["about"]) {
        command = command.about(about);
    }
    for arg in described["args"].as_array()? {
        let id = kept(&arg["id"])?;
        // Every command makes these itself.
        if id == "help" || id == "version" {
            continue;
        }
        let takes_value = arg["takes_value"].as_bool()?;
        // Of words without a name only the last may be many.
        let many = arg["many"] == true;
        let action = match takes_value {
            true if many => ArgAction::Append,
            true => ArgAction::Set,
            false => ArgAction::SetTrue,
        };
        let mut built = Arg::new(id).action(action);
        if let Some(long) = kept(&arg["long"]) {
            built = built.long(long);
        }
        if let Some(short) = arg["short"].as_str().and_then(|short| short.chars().next()) {
            built = built.short(short);
        }
        if let Some(help) = kept(&arg["help"]) {
            built = built.help(help);
        }
        let values: Vec<&'static str> = arg["values"].as_array()?.iter().filter_map(kept).collect();
        if takes_value && !values.is_empty() {
            built = built.value_parser(values);
        } else if takes_value && arg["path"] == true {
            built = built.value_hint(ValueHint::AnyPath);
        }
        command = command.arg(built);
    }
    for below in described["commands"].as_array()? {
        command = command.subcommand(command_of(below)?);
    }
    Some(command)
}

/// A text for as long as the program runs, which ends after it printed its script.
fn kept(value: &Value) -> Option<&'static str> {
    value.as_str().map(|text| &*Box::leak(text.to_owned().into_boxed_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_described_command_completes_as_the_command_does() {
        let options = [
            Arg::new("without").long("without").help("Leave out").value_parser(["worker", "broadcaster"]),
            Arg::new("edge").long("edge").short('e').action(ArgAction::SetTrue),
            Arg::new("old").required(true),
            Arg::new("new").action(ArgAction::Append),
        ];
        let command = Command::new("dev").about("Start everything").args(options).subcommand(Command::new("now"));
        let again = command_of(&describe(&command)).unwrap();
        again.clone().debug_assert();
        assert_eq!(describe(&again), describe(&command));
        assert!(command_of(&json!({ "name": 7 })).is_none());
    }
}
