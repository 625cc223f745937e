//! The arguments of a tool, from the command line, a file or stdin.

use agentforge_terminal::{Failure, Result};
use serde_json::value::RawValue;
use std::{io::Read, path::Path};

/// Larger arguments are refused by any server, so they are not even sent.
const ARGS_MAX_BYTES: u64 = 64 << 20;

/// The arguments of a tool: JSON text, `@file`, or `-` for stdin. Checked to be a JSON object, since
/// the mistake is cheaper to see here.
///
/// # Errors
/// A file that cannot be read, or text that is not a JSON object; both are usage errors.
pub fn read_args(given: Option<&str>) -> Result<String> {
    let (text, from) = match given {
        None => return Ok("{}".to_owned()),
        Some("-") => (read_limited(std::io::stdin(), "stdin")?, "stdin".to_owned()),
        Some(text) => match text.strip_prefix('@') {
            Some(path) => (read_file(Path::new(path))?, path.to_owned()),
            None => (text.to_owned(), "the command line".to_owned()),
        },
    };
    check_object(&text).map_err(|problem| {
        Failure::usage(format!("the arguments from {from} {problem}"))
            .hint("quote them for the shell, as in '{\"hello\":\"world\"}', or give @file or - for stdin")
    })?;
    Ok(text.trim().to_owned())
}

/// Whether the text is one JSON object.
///
/// # Errors
/// What is wrong, as the rest of a sentence.
pub fn check_object(text: &str) -> Result<(), String> {
    let raw: &RawValue = serde_json::from_str(text).map_err(|e| format!("are not JSON: {e}"))?;
    if raw.get().starts_with('{') { Ok(()) } else { Err("are JSON, but not an object".to_owned()) }
}

fn read_file(path: &Path) -> Result<String> {
    let file =
        std::fs::File::open(path).map_err(|e| Failure::usage(format!("{} cannot be read: {e}", path.display())))?;
    read_limited(file, &path.display().to_string())
}

fn read_limited(from: impl Read, name: &str) -> Result<String> {
    let mut text = String::new();
    from.take(ARGS_MAX_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|e| Failure::usage(format!("{name} cannot be read: {e}")))?;
    if text.len() as u64 > ARGS_MAX_BYTES {
        return Err(Failure::usage(format!("{name} holds more than {} MiB", ARGS_MAX_BYTES >> 20)));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_one_json_object() {
        assert_eq!(read_args(None).unwrap(), "{}");
        assert_eq!(read_args(Some(" {\"a\": 1} ")).unwrap(), "{\"a\": 1}");
        for bad in ["", "[1]", "1", "{\"a\":1", "{} {}", "@/nonexistent/file"] {
            let failure = read_args(Some(bad)).unwrap_err();
            assert_eq!(failure.exit, agentforge_terminal::USAGE, "{bad}");
        }
    }

    #[test]
    fn arguments_come_from_a_file() {
        let path = std::env::temp_dir().join(format!("agentforge-args-{}.json", std::process::id()));
        std::fs::write(&path, "{\"n\": 1}\n").unwrap();
        assert_eq!(read_args(Some(&format!("@{}", path.display()))).unwrap(), "{\"n\": 1}");
        std::fs::remove_file(path).unwrap();
    }
}
