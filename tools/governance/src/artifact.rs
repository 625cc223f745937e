//! Artifacts: deterministic files below `status/` of an output directory, and the moment that is written into them.
//!
//! The one place that writes. A file is replaced as a whole, so that a reader never sees half of one. Nothing but
//! [`Artifacts::at`] says what time it is: given by `--at` or SOURCE_DATE_EPOCH, the same input gives the same bytes.

use crate::{exit::broken, global::Global};
use agentforge_terminal::{Failure, Result};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

/// A larger input is refused: nothing that is governed comes near, and memory stays bounded.
pub const INPUT_BYTES_MAX: u64 = 64 << 20;
/// The folder of artifacts, below the output directory.
const FOLDER: &str = "status";

/// Where artifacts go, and when they are written.
#[derive(Clone, Debug)]
pub struct Artifacts {
    folder: PathBuf,
    at: Timestamp,
}

impl Artifacts {
    /// As the options say.
    ///
    /// # Errors
    /// SOURCE_DATE_EPOCH that is no number of seconds.
    pub fn of(global: &Global) -> Result<Self> {
        let at = match (global.at, env::var("SOURCE_DATE_EPOCH")) {
            (Some(at), _) => at,
            (None, Ok(text)) => text
                .parse()
                .ok()
                .and_then(|seconds| Timestamp::from_second(seconds).ok())
                .ok_or_else(|| Failure::usage(format!("SOURCE_DATE_EPOCH {text:?} is not a number of seconds")))?,
            (None, Err(_)) => Timestamp::now(),
        };
        Ok(Self::new(&global.output, at))
    }

    /// Below `output`, at a moment; parts of a second are left out.
    pub fn new(output: &Path, at: Timestamp) -> Self {
        let at = Timestamp::from_second(at.as_second()).unwrap_or(at);
        Self { folder: output.join(FOLDER), at }
    }

    /// The moment that is taken for now, in whole seconds.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// The file of an artifact; `name` may have folders.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes an artifact as JSON, see [`json`]; the file that it is.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_json(&self, name: &str, value: &impl Serialize) -> Result<PathBuf> {
        self.write_text(name, &json(value))
    }

    /// Writes an artifact as it is; the file that it is.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_text(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(name);
        write(&path, text)?;
        Ok(path)
    }
}

/// JSON with sorted keys, two spaces and a last line end: the same value gives the same bytes.
pub fn json(value: &impl Serialize) -> String {
    let value = sorted(serde_json::to_value(value).expect("every artifact has text for keys and finite numbers"));
    let mut text = serde_json::to_string_pretty(&value).expect("a value is always text");
    text.push('\n');
    text
}

/// The value in canonical JSON, to be hashed or signed: sorted keys, no white space.
pub fn canonical(value: &impl Serialize) -> String {
    let value = sorted(serde_json::to_value(value).expect("every artifact has text for keys and finite numbers"));
    serde_json::to_string(&value).expect("a value is always text")
}

/// The value with the keys of every object in order, regardless of the order that serde_json was built to keep.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            let mut members: Vec<_> = object.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            members.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(members.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

/// Replaces a file as a whole, with the folders above it.
///
/// # Errors
/// It cannot be written; the message names it.
pub fn write(path: &Path, text: &str) -> Result {
    let failed = |e: io::Error| Failure::new(format!("{} cannot be written: {e}", path.display()));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    fs::write(&new, text).and_then(|()| fs::rename(&new, path)).map_err(|e| {
        // What could not be moved is of no use.
        let _ = fs::remove_file(&new);
        failed(e)
    })
}

/// The text of an input file.
///
/// # Errors
/// Broken input: it cannot be read, is larger than [`INPUT_BYTES_MAX`] or no UTF-8.
pub fn read(path: &Path) -> Result<String> {
    let size = fs::metadata(path).map_err(|e| broken(path, 0, e))?.len();
    if size > INPUT_BYTES_MAX {
        return Err(broken(path, 0, format_args!("{size} bytes are more than the limit of {INPUT_BYTES_MAX}")));
    }
    fs::read_to_string(path).map_err(|e| broken(path, 0, e))
}

/// The input file as JSON of a kind.
///
/// # Errors
/// Broken input, with its line.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_str(&read(path)?).map_err(|e| broken(path, e.line(), e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_is_the_same_bytes_for_the_same_value() {
        let value = json!({ "b": [{ "z": 1, "a": 2 }], "a": "x" });
        assert_eq!(super::json(&value).lines().nth(1), Some("  \"a\": \"x\","));
        assert_eq!(canonical(&value), r#"{"a":"x","b":[{"a":2,"z":1}]}"#);
    }

    #[test]
    fn a_file_is_replaced_and_nothing_is_left_beside_it() {
        let home = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::new(home.path(), "2026-01-31T10:00:00.5Z".parse().unwrap());
        assert_eq!(artifacts.at().to_string(), "2026-01-31T10:00:00Z");
        for text in ["one\n", "two\n"] {
            let path = artifacts.write_text("deep/x.txt", text).unwrap();
            assert_eq!(read(&path).unwrap(), text);
            assert_eq!(path.parent().unwrap().read_dir().unwrap().count(), 1);
        }
    }

    #[test]
    fn broken_input_is_named_with_its_line() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("x.json");
        write(&path, "{\n \"a\": }").unwrap();
        let failure = read_json::<Value>(&path).unwrap_err();
        assert_eq!(failure.exit, crate::exit::BROKEN);
        assert!(failure.message.contains("x.json:2: "), "{}", failure.message);
        assert!(read(&home.path().join("none")).unwrap_err().message.contains("none"));
    }
}
