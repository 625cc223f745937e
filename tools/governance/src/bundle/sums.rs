//! Checksums of artifacts, and what differs between a list of them and a folder.

use crate::{artifact::canonical, exit::broken};
use agentforge_terminal::Result;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

/// Made from the artifacts, so not among them.
pub const OWN: [&str; 4] =
    ["checksums.json", "checksums-badge.json", "checksums-signature.json", "checksums-pubkey.txt"];
/// More than any output has.
const FILES_MAX: usize = 10_000;

/// A file and the SHA-256 of its bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Artifact {
    /// Relative to the folder, with `/`.
    pub path: String,
    /// In lower-case hexadecimal digits.
    pub sha256: String,
}

/// checksums.json.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksums {
    /// Of this format.
    pub schema_version: u32,
    /// Of the canonical JSON of the sorted list.
    pub aggregate_sha256: String,
    /// How many artifacts.
    pub count: usize,
    /// Sorted by path.
    pub artifacts: Vec<Artifact>,
}

impl Checksums {
    /// Of a list.
    #[must_use]
    pub fn of(mut artifacts: Vec<Artifact>) -> Self {
        artifacts.sort();
        let aggregate_sha256 = aggregate(&artifacts);
        Self { schema_version: 1, aggregate_sha256, count: artifacts.len(), artifacts }
    }
}

/// The hash over a list: the canonical JSON of what is in it, in the order of the paths.
#[must_use]
pub fn aggregate(artifacts: &[Artifact]) -> String {
    let mut sorted = artifacts.to_vec();
    sorted.sort();
    hex::encode(ring::digest::digest(&SHA256, canonical(&sorted).as_bytes()))
}

/// The artifacts of a folder with their checksums.
///
/// # Errors
/// A file cannot be read, or is a link: what a link leads to may change unseen.
pub fn listed(folder: &Path) -> Result<Vec<Artifact>> {
    let mut files = Vec::new();
    walk(folder, &mut files)?;
    let mut found = Vec::new();
    for file in files {
        let relative = file.strip_prefix(folder).unwrap_or(&file);
        let path = relative.to_str().ok_or_else(|| broken(&file, 0, "its name is not UTF-8"))?.replace('\\', "/");
        if !OWN.contains(&path.as_str()) {
            found.push(Artifact { path, sha256: sha256(&file)? });
        }
    }
    found.sort();
    Ok(found)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result {
    for entry in fs::read_dir(folder).map_err(|e| broken(folder, 0, e))? {
        let entry = entry.map_err(|e| broken(folder, 0, e))?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(|e| broken(folder, 0, e))?);
        match () {
            () if kind.is_dir() => walk(&path, files)?,
            () if kind.is_file() => files.push(path),
            () => return Err(broken(&path, 0, "it is not a plain file")),
        }
        if files.len() > FILES_MAX {
            return Err(broken(folder, 0, format_args!("there are more than {FILES_MAX} files")));
        }
    }
    Ok(())
}

fn sha256(file: &Path) -> Result<String> {
    let mut reader = File::open(file).map_err(|e| broken(file, 0, e))?;
    let (mut context, mut block) = (Context::new(&SHA256), vec![0; 64 << 10]);
    loop {
        match reader.read(&mut block).map_err(|e| broken(file, 0, e))? {
            0 => return Ok(hex::encode(context.finish())),
            n => context.update(&block[..n]),
        }
    }
}

/// What differs between what was signed and what is there; empty when nothing does.
#[must_use]
pub fn compare(signed: &[Artifact], there: &[Artifact]) -> Vec<String> {
    let by_path = |all: &[Artifact]| -> BTreeMap<String, String> {
        all.iter().map(|a| (a.path.clone(), a.sha256.clone())).collect()
    };
    let (before, now) = (by_path(signed), by_path(there));
    let mut wrong = Vec::new();
    for (path, hash) in &before {
        let Some(found) = now.get(path) else {
            let moved = now.iter().find(|(other, h)| *h == hash && !before.contains_key(*other));
            let to = moved.map(|(other, _)| format!("; {other} has its content")).unwrap_or_default();
            wrong.push(format!("{path}: missing{to}"));
            continue;
        };
        if found == hash {
            continue;
        }
        match before.iter().find(|(other, h)| *h == found && *other != path) {
            Some((other, _)) => wrong.push(format!("{path}: swapped: it has the content of {other}")),
            None => wrong.push(format!("{path}: changed: SHA-256 is {found}, {hash} was signed")),
        }
    }
    let extra = now.keys().filter(|path| !before.contains_key(*path));
    wrong.extend(extra.map(|path| format!("{path}: extra: it was not signed")));
    wrong
}
