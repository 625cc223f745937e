//! Programs that a script of ours finds or provides, asked once a process.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::Command,
    sync::{Mutex, OnceLock},
};

/// The path of `nats-server`, `kubectl` or another program for which there is `scripts/<name> --path`.
///
/// # Errors
/// What the script said: where it is not here and could not be provided.
pub fn program(name: &str) -> Result<PathBuf, String> {
    static FOUND: OnceLock<Mutex<BTreeMap<String, Result<PathBuf, String>>>> = OnceLock::new();
    let mut found = FOUND.get_or_init(Mutex::default).lock().expect("nothing panics under this lock");
    found.entry(name.to_owned()).or_insert_with(|| ask(name)).clone()
}

fn ask(name: &str) -> Result<PathBuf, String> {
    let script = format!("{}/../../scripts/{name}", env!("CARGO_MANIFEST_DIR"));
    let out = Command::new(&script).arg("--path").output().map_err(|e| format!("{script}: {e}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if out.status.success() { Ok(PathBuf::from(text(&out.stdout))) } else { Err(text(&out.stderr)) }
}

/// A program of the system's packages; the error says how to get it.
pub(crate) fn on_path(name: &str) -> Result<PathBuf, String> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| format!("{name} is not on PATH: install your system's package of that name"))
}
