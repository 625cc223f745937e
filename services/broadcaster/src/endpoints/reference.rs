//! Values stored elsewhere: `env:NAME` is a variable, `file:/path` the content of a file.
//!
//! URLs, secrets and headers may be written like this, as each of them may be a secret. Faults are reported without
//! repeating the text: it may be the secret itself, written after the prefix.

use ring::digest::{Context, SHA256};
use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

/// A larger file holds no URL, secret or header.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// The referenced content, without surrounding white space; the text itself when it is not a reference.
///
/// # Errors
/// What is wrong, to follow the name of the key.
pub fn resolve(text: &str) -> Result<String, String> {
    let found = match (text.strip_prefix("env:"), file(text)) {
        (Some(name), _) => std::env::var(name).map_err(|_| "names a variable that is not set".to_owned())?,
        (_, Some(path)) => read(path)?,
        _ => return Ok(text.to_owned()),
    };
    match found.trim() {
        "" => Err("names a variable or file that is empty".to_owned()),
        found => Ok(found.to_owned()),
    }
}

/// Whether a text names a variable or a file.
pub fn is_reference(text: &str) -> bool {
    text.starts_with("env:") || file(text).is_some()
}

/// The file that a text refers to.
pub fn file(text: &str) -> Option<&Path> {
    text.strip_prefix("file:").map(Path::new)
}

/// Changes when one of the files does, comes or goes.
pub fn fingerprint(files: &BTreeSet<PathBuf>) -> String {
    let mut sum = Context::new(&SHA256);
    for path in files {
        let content = read(path).unwrap_or_else(|problem| format!("\0{problem}"));
        for part in [path.as_os_str().as_encoded_bytes(), content.as_bytes()] {
            sum.update(&(part.len() as u64).to_be_bytes());
            sum.update(part);
        }
    }
    hex::encode(sum.finish())
}

fn read(path: &Path) -> Result<String, String> {
    let cannot = |e: io::Error| format!("names a file that cannot be read: {}", e.kind());
    let about = std::fs::metadata(path).map_err(cannot)?;
    if !about.is_file() || about.len() > FILE_BYTES_MAX {
        return Err(format!("does not name a file of at most {FILE_BYTES_MAX} bytes"));
    }
    std::fs::read_to_string(path).map_err(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_itself_or_what_it_names_and_faults_repeat_nothing() {
        let dir = std::env::temp_dir().join(format!("reference-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (full, empty) = (dir.join("full"), dir.join("empty"));
        std::fs::write(&full, " value\n").unwrap();
        std::fs::write(&empty, "\n").unwrap();
        let named = |path: &Path| format!("file:{}", path.display());
        assert_eq!(resolve(" plain ").unwrap(), " plain ");
        assert_eq!(resolve(&named(&full)).unwrap(), "value");
        assert!(resolve(&format!("env:{}", "PATH")).is_ok());
        for (text, words) in [
            (named(&empty), "is empty"),
            (named(&dir), "not name a file"),
            ("file:/hunter2".to_owned(), "cannot be read: entity not found"),
            ("env:hunter2".to_owned(), "not set"),
        ] {
            let problem = resolve(&text).unwrap_err();
            assert!(problem.contains(words) && !problem.contains("hunter2"), "{text}: {problem}");
        }

        let files = BTreeSet::from([full.clone(), dir.join("none")]);
        let before = fingerprint(&files);
        assert_eq!(fingerprint(&files), before);
        std::fs::write(&full, "other\n").unwrap();
        assert_ne!(fingerprint(&files), before);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
