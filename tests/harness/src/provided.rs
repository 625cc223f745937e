//! Programs that one of our scripts finds or provides, asked once per process.

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

/// The path of one version of nats-server, such as `2.14.6`, regardless of the version used otherwise.
///
/// # Errors
/// What `scripts/nats-server` said: where it could not be provided.
pub fn nats_server_of(version: &str) -> Result<PathBuf, String> {
    static FOUND: OnceLock<Mutex<BTreeMap<String, Result<PathBuf, String>>>> = OnceLock::new();
    let mut found = FOUND.get_or_init(Mutex::default).lock().expect("nothing panics under this lock");
    let ask = || ask_script("nats-server", &["--of", version, "--path"]).map(PathBuf::from);
    found.entry(version.to_owned()).or_insert_with(ask).clone()
}

/// The versions of nats-server that the tests run on, the oldest first.
///
/// # Panics
/// When the script does not run.
pub fn nats_versions() -> Vec<String> {
    let said = ask_script("nats-server", &["--supported"]).unwrap_or_else(|e| panic!("{e}"));
    said.split_whitespace().map(str::to_owned).collect()
}

/// The version of nats-server that scripts, manifests and documents name.
///
/// # Panics
/// When the script does not run.
pub fn nats_pinned() -> String {
    let said = ask_script("nats-server", &["--pinned"]).unwrap_or_else(|e| panic!("{e}"));
    said.split_whitespace().last().expect("one is pinned").to_owned()
}

fn ask(name: &str) -> Result<PathBuf, String> {
    ask_script(name, &["--path"]).map(PathBuf::from)
}

/// What a script of ours prints, or says where it fails.
fn ask_script(name: &str, args: &[&str]) -> Result<String, String> {
    let script = format!("{}/../../scripts/{name}", env!("CARGO_MANIFEST_DIR"));
    let out = Command::new(&script).args(args).output().map_err(|e| format!("{script}: {e}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
}

/// The Python that has a module, such as `jsonschema`: the first on PATH, else the system's.
///
/// # Errors
/// None has it, with how to get it.
pub fn python_with(module: &str) -> Result<PathBuf, String> {
    let pythons = on_path("python3").into_iter().chain([PathBuf::from("/usr/bin/python3")]);
    let has = |python: &PathBuf| {
        let out = Command::new(python).args(["-c", &format!("import {module}")]).output();
        out.is_ok_and(|out| out.status.success())
    };
    pythons.into_iter().find(has).ok_or_else(|| {
        format!("Python has no module {module}: install your system's package python3-{module}, or it from PyPI")
    })
}

/// A program of the system's packages; the error says how to get it.
pub(crate) fn on_path(name: &str) -> Result<PathBuf, String> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| format!("{name} is not on PATH: install your system's package of that name"))
}
