//! The documents of a contract in a file or folder: OpenAPI, JSON Schemas, .proto files and pages of tables.
//!
//! A document is known by what it says, not by its name. A fault names the file and, where the reader knows it, the line.

use super::{
    catalogue,
    finding::{Finding, Findings},
    openapi::{self, Document, OperationName, Schemas, Way},
    proto::{self, Declared},
    rules::{self as r},
};
use crate::{artifact::read, exit::broken};
use agentforge_terminal::{Failure, Result};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// More than any contract has; a wrong folder ends soon.
const FILES_MAX: usize = 10_000;

/// A contract at one moment.
#[derive(Debug, Default)]
pub struct Tree {
    openapi: BTreeMap<String, Document>,
    schemas: BTreeMap<String, Document>,
    pages: BTreeMap<String, String>,
    proto: Option<Declared>,
}

impl Tree {
    /// Reads a file or folder.
    ///
    /// # Errors
    /// Broken input: nothing to compare exists, or a document cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let mut files = Vec::new();
        if path.is_dir() {
            walk(path, &mut files)?;
        } else {
            files.push(path.to_owned());
        }
        let mut tree = Self::default();
        for file in &files {
            tree.take(file, &named(path, file))?;
        }
        tree.take_proto(path, &files)?;
        if tree.openapi.is_empty() && tree.schemas.is_empty() && tree.pages.is_empty() && tree.proto.is_none() {
            return Err(broken(path, 0, "there is no OpenAPI document, JSON Schema, .proto file or page of tables"));
        }
        Ok(tree)
    }

    fn take(&mut self, file: &Path, name: &str) -> Result {
        let value: Value = match file.extension().and_then(|e| e.to_str()) {
            Some("json") => serde_json::from_str(&read(file)?).map_err(|e| broken(file, e.line(), e))?,
            Some("yaml" | "yml") => {
                yaml_serde::from_str(&read(file)?).map_err(|e| broken(file, e.location().map_or(0, |l| l.line()), e))?
            }
            Some("md" | "tables") => {
                let text = read(file)?;
                if !catalogue::kinds(&text).is_empty() {
                    self.pages.insert(name.to_owned(), text);
                }
                return Ok(());
            }
            _ => return Ok(()),
        };
        let (is_openapi, is_schema) = (value["openapi"].is_string(), value["$schema"].is_string());
        if is_openapi && !value["openapi"].as_str().is_some_and(|version| version.starts_with("3.")) {
            return Err(broken(file, 0, format_args!("OpenAPI {} is not 3.x", value["openapi"])));
        }
        if is_openapi || is_schema {
            let document = Document::new(value).map_err(|e| broken(file, 0, e))?;
            let of = if is_openapi { &mut self.openapi } else { &mut self.schemas };
            of.insert(name.to_owned(), document);
        }
        Ok(())
    }

    fn take_proto(&mut self, path: &Path, files: &[PathBuf]) -> Result {
        let folder = match path.join("proto") {
            _ if path.is_file() => path.parent().unwrap_or(Path::new(".")).to_owned(),
            inner if inner.is_dir() => inner,
            _ => path.to_owned(),
        };
        let is_proto = |file: &&PathBuf| file.extension().is_some_and(|e| e == "proto");
        let own: Vec<PathBuf> =
            files.iter().filter(is_proto).filter_map(|f| f.strip_prefix(&folder).ok().map(Path::to_owned)).collect();
        if !own.is_empty() {
            let shown = if folder.as_os_str().is_empty() { Path::new(".") } else { folder.as_path() };
            self.proto = Some(Declared::compile(shown, &own).map_err(|e| broken(shown, 0, e))?);
        }
        Ok(())
    }

    /// The version that the OpenAPI documents have, if all that have one agree.
    #[must_use]
    pub fn version(&self) -> Option<String> {
        let versions: BTreeSet<_> = self.openapi.values().filter_map(|d| d.at("/info/version").as_str()).collect();
        (versions.len() == 1).then(|| versions.first().map(|v| (*v).to_owned())).flatten()
    }

    /// The operations of all documents.
    #[must_use]
    pub fn operations(&self) -> BTreeSet<OperationName> {
        self.openapi.values().flat_map(openapi::names).collect()
    }
}

/// Everything that differs.
#[must_use]
pub fn compare(old: &Tree, new: &Tree) -> Vec<Finding> {
    let mut all = Vec::new();
    pairs(&old.openapi, &new.openapi, &mut all, |name, old, new, all| {
        let mut found = Findings::of(name);
        openapi::compare(old, new, &mut found);
        all.extend(found.sorted());
    });
    pairs(&old.schemas, &new.schemas, &mut all, |name, old, new, all| {
        let mut found = Findings::of(name);
        // We publish what these describe, and others read it.
        let place = new.at("/title").as_str().unwrap_or("schema").to_owned();
        Schemas::new(old, new, &mut found, &place).compare(old.root(), new.root(), Way::Response, "");
        all.extend(found.sorted());
    });
    pairs(&old.pages, &new.pages, &mut all, |name, old, new, all| {
        for kind in catalogue::kinds(old) {
            all.extend(catalogue::compare(old, new, kind, name));
        }
    });
    match (&old.proto, &new.proto) {
        (Some(old), Some(new)) => all.extend(proto::compare(old, new, "proto")),
        (Some(old), None) => all.extend(proto::compare(old, &Declared::default(), "proto")),
        _ => {}
    }
    all.sort_by(|a, b| b.level.cmp(&a.level).then_with(|| a.cmp(b)));
    all
}

fn pairs<T>(
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    all: &mut Vec<Finding>,
    compare: impl Fn(&str, &T, &T, &mut Vec<Finding>),
) {
    // Two files that were compared by their paths may have any names.
    if let (1, 1, Some((name, was)), Some((other, is))) = (old.len(), new.len(), old.iter().next(), new.iter().next())
        && !name.contains('/')
        && !other.contains('/')
    {
        return compare(other, was, is, all);
    }
    for (name, was) in old {
        match new.get(name) {
            Some(is) => compare(name, was, is, all),
            None => {
                let mut found = Findings::of(name);
                found.add(&r::DOCUMENT_REMOVED, name, "", "it is gone");
                all.extend(found.sorted());
            }
        }
    }
    for name in new.keys().filter(|name| !old.contains_key(*name)) {
        let mut found = Findings::of(name);
        found.add(&r::DOCUMENT_ADDED, name, "", "it is new");
        all.extend(found.sorted());
    }
}

/// The file's name in the contract: relative to the folder, or its own.
fn named(path: &Path, file: &Path) -> String {
    let relative = file.strip_prefix(path).ok().filter(|p| !p.as_os_str().is_empty());
    relative.unwrap_or(file.file_name().map_or(file, Path::new)).to_string_lossy().replace('\\', "/")
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result {
    let entries = fs::read_dir(folder).map_err(|e| broken(folder, 0, e))?;
    let mut paths =
        entries.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>().map_err(|e| broken(folder, 0, e))?;
    paths.sort();
    for path in paths {
        if path.is_dir() && !path.is_symlink() {
            walk(&path, files)?;
        } else {
            files.push(path);
        }
        if files.len() > FILES_MAX {
            return Err(Failure::usage(format!("{} has more than {FILES_MAX} files", folder.display())));
        }
    }
    Ok(())
}
