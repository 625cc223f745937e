//! Texts made from the declarations: `--help` and the configuration page.

use crate::Setting;
use std::fmt::Write;

/// Width at which `--help` breaks its lines, in characters.
const WIDTH: usize = 96;

/// The settings of a service for `--help`, by group, each with help, allowed values and default.
pub fn help(groups: &[(&str, &[Setting])]) -> String {
    let mut out = String::new();
    for (name, settings) in groups {
        let _ = writeln!(out, "{name}:");
        for setting in *settings {
            let _ = writeln!(out, "  {}", setting.key);
            wrap(&mut out, setting.help);
            wrap(&mut out, &details(setting));
        }
        out.push('\n');
    }
    out
}

/// The same as tables in Markdown, a heading per group.
pub fn markdown(groups: &[(&str, &[Setting])]) -> String {
    let mut out = String::new();
    for (index, (name, settings)) in groups.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        let _ = writeln!(out, "## {name}\n");
        out.push_str("| Variable | Values | Default | Meaning |\n|---|---|---|---|\n");
        for setting in *settings {
            let default = match (setting.default_note, setting.shown_default()) {
                (Some(note), _) => cell(note),
                (None, Some(default)) => format!("`{}`", cell(default)),
                (None, None) => "–".to_owned(),
            };
            let secret = match (setting.secret, setting.by_file) {
                (false, _) => String::new(),
                (true, false) => " Secret: never shown.".to_owned(),
                (true, true) => format!(" Secret: never shown; or `{}_FILE`.", setting.key),
            };
            let _ = writeln!(
                out,
                "| `{}` | {} | {default} | {}{secret} |",
                setting.key,
                cell(setting.values),
                cell(setting.help),
            );
        }
    }
    out
}

fn details(setting: &Setting) -> String {
    let mut out = format!("values: {}", setting.values);
    if let Some(default) = setting.shown_default() {
        let _ = write!(out, "; default: {default}");
    }
    if setting.secret {
        out.push_str("; secret");
    }
    if setting.by_file {
        let _ = write!(out, ", or in the file {}_FILE", setting.key);
    }
    format!("[{out}]")
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ").replace('<', "&lt;")
}

fn wrap(out: &mut String, text: &str) {
    const INDENT: &str = "      ";
    let mut line = String::from(INDENT);
    for word in text.split_whitespace() {
        let fits = line.chars().count() + 1 + word.chars().count() <= WIDTH;
        if !fits && line.len() > INDENT.len() {
            out.push_str(line.trim_end());
            out.push('\n');
            line = String::from(INDENT);
        }
        line.push_str(word);
        line.push(' ');
    }
    out.push_str(line.trim_end());
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: [Setting; 3] = [
        Setting::new("A_PORT", Some("8080"), "port 0-65535", "Where it listens."),
        Setting::new("A_TOKEN", Some("dev-token"), "a|b", "Who may call.").secret(),
        Setting::new("A_NAME", None, "text", "Its name.").default_note("value of ENV"),
    ];

    #[test]
    fn help_names_every_key_value_and_default() {
        let text = help(&[("Thing", &SETTINGS)]);
        for part in [
            "Thing:",
            "A_PORT",
            "port 0-65535; default: 8080",
            "Where it listens.",
            "default: value of ENV",
            "default: dev-token; secret, or in the file A_TOKEN_FILE",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH));
    }

    #[test]
    fn markdown_is_a_table_with_escaped_cells() {
        let text = markdown(&[("Thing", &SETTINGS)]);
        assert!(text.contains("| `A_PORT` | port 0-65535 | `8080` | Where it listens. |"), "{text}");
        assert!(
            text.contains(
                "| `A_TOKEN` | a\\|b | `dev-token` | Who may call. Secret: never shown; or `A_TOKEN_FILE`. |"
            ),
            "{text}"
        );
        assert!(text.contains("| `A_NAME` | text | value of ENV | Its name. |"), "{text}");
    }
}
