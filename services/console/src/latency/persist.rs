//! Targets in a file: written whole or not at all, read at the start.

use super::targets::{Given, Target, from_given, to_given};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// The file's name in the data folder.
pub const FILE: &str = "latency_targets.json";
/// Bytes of the file that are read, at most: 64 targets with the longest URLs take 40 KiB.
const BYTES_MAX: u64 = 256 * 1024;

#[derive(serde::Serialize, serde::Deserialize)]
struct Document {
    targets: Vec<Given>,
}

/// Where it is.
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

/// What the file says; nothing where there is none.
///
/// # Errors
/// Why it cannot be used.
pub fn read(file: &Path) -> Result<Vec<Target>, String> {
    let problem = |e: io::Error| format!("{}: {e}", file.display());
    match std::fs::metadata(file) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(problem(e)),
        Ok(about) if about.len() > BYTES_MAX => {
            return Err(format!("{}: longer than {BYTES_MAX} bytes", file.display()));
        }
        Ok(_) => {}
    }
    let text = std::fs::read_to_string(file).map_err(problem)?;
    let document: Document = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", file.display()))?;
    from_given(&document.targets).map_err(|e| format!("{}: {e}", file.display()))
}

/// Replaces the file: what was there before stays until the new one is on disk.
///
/// # Errors
/// Of the file system.
pub fn write(file: &Path, targets: &[Target]) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    agentforge_runtime::private::create_dir_all(folder)?;
    let mut text = serde_json::to_vec_pretty(&Document { targets: to_given(targets) })?;
    text.push(b'\n');
    let new = file.with_extension("json.new");
    let mut to = agentforge_runtime::private::options().create(true).write(true).truncate(true).open(&new)?;
    to.write_all(&text)?;
    to.sync_all()?;
    std::fs::rename(&new, file)?;
    // The rename itself must survive, too.
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::super::targets::parse;
    use super::*;

    #[test]
    fn what_is_written_is_read_and_rubbish_is_said_to_be() {
        let dir = tempfile::tempdir().unwrap();
        let file = path(&dir.path().join("data"));
        assert_eq!(read(&file).unwrap(), []);
        let targets = parse("a:http://127.0.0.1:1/x,b:https://b.example/").unwrap();
        write(&file, &targets).unwrap();
        assert_eq!(read(&file).unwrap(), targets);
        write(&file, &[]).unwrap();
        assert_eq!(read(&file).unwrap(), []);
        assert_eq!(std::fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "nothing is left next to it");
        for rubbish in ["", "{", r#"{"targets":[{"name":"a"}]}"#, r#"{"targets":[{"name":"a","url":"ftp://x"}]}"#] {
            std::fs::write(&file, rubbish).unwrap();
            assert!(read(&file).unwrap_err().contains(FILE), "{rubbish}");
        }
        std::fs::write(&file, vec![b' '; 300 * 1024]).unwrap();
        assert!(read(&file).unwrap_err().contains("262144"));
    }
}
