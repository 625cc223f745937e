//! The ready file: reports to the parent process which ports were taken.
//!
//! Written whole or not at all: a reader that finds it may trust it.

use crate::{Endpoints, Error};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;

/// Writes `{"<name>": {"http": url, "grpc": url, "metrics": url, "pid": n}, …}` through a temporary file in the same
/// folder and a rename. Addresses that are not served are `null`.
///
/// # Errors
/// [`Error::ReadyFile`] names the path.
pub fn write_ready_file(path: &Path, services: &[(&str, Endpoints)]) -> Result<(), Error> {
    let body: Map<String, Value> =
        services.iter().map(|(name, endpoints)| ((*name).to_owned(), entry(endpoints))).collect();
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let written =
        fs::write(&temporary, format!("{}\n", Value::Object(body))).and_then(|()| fs::rename(&temporary, path));
    written.map_err(|source| {
        let _ = fs::remove_file(&temporary);
        Error::ReadyFile { path: path.to_owned(), source }
    })
}

/// Removes the file of an earlier process, so that its addresses are not used.
pub(crate) fn remove_ready_file(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "could not remove the ready file");
        }
        _ => {}
    }
}

fn entry(endpoints: &Endpoints) -> Value {
    json!({
        "http": endpoints.http_url(),
        "grpc": endpoints.grpc_url(),
        "metrics": endpoints.metrics_url(),
        "pid": std::process::id(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_reader_never_sees_half_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ready.json");
        let endpoints = Endpoints { http: Some("127.0.0.1:8080".parse().unwrap()), ..Endpoints::default() };
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut seen = 0;
                while !done.load(Ordering::SeqCst) || seen == 0 {
                    if let Ok(text) = fs::read_to_string(&path) {
                        let body: Value = serde_json::from_str(&text).expect("the file is whole");
                        assert_eq!(body["worker"]["http"], "http://127.0.0.1:8080");
                        assert_eq!(body["worker"]["grpc"], Value::Null);
                        assert_eq!(body["worker"]["pid"], std::process::id());
                        seen += 1;
                    }
                }
            });
            for _ in 0..200 {
                write_ready_file(&path, &[("worker", endpoints), ("other", Endpoints::default())]).unwrap();
            }
            done.store(true, Ordering::SeqCst);
            reader.join().unwrap();
        });
        let names: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["ready.json"], "no temporary file is left");
    }

    #[test]
    fn an_unwritable_path_is_named() {
        let error = write_ready_file(Path::new("/nowhere/at/all.json"), &[]).unwrap_err();
        assert!(error.to_string().contains("/nowhere/at/all.json"), "{error}");
    }
}
