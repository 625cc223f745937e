//! The files of a tree of kustomizations: none is forgotten, none is missing, and patches say what they patch.

use super::object::list;
use crate::{artifact::read, exit::Fault};
use agentforge_terminal::Result;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// How a kustomization is named.
const NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];
/// The keys of a kustomization that name files or folders.
const LISTS: [&str; 7] =
    ["resources", "components", "bases", "patchesStrategicMerge", "configurations", "crds", "transformers"];

/// One folder with a kustomization.
#[derive(Debug)]
pub struct Kustomization {
    /// The folder.
    pub folder: PathBuf,
    /// The file.
    pub file: PathBuf,
    /// What it says.
    pub value: Value,
}

impl Kustomization {
    /// Whether it is a component, which is only built with others.
    #[must_use]
    pub fn is_component(&self) -> bool {
        self.value["kind"] == "Component"
    }

    /// Everything that it names and that is not an address.
    fn named(&self) -> Vec<&str> {
        let lists = LISTS.into_iter().flat_map(|key| list(&self.value[key]).iter());
        let patches = ["patches", "patchesJson6902", "replacements"].into_iter();
        let patches = patches.flat_map(|key| list(&self.value[key]).iter().filter_map(|patch| patch.get("path")));
        let generators =
            ["configMapGenerator", "secretGenerator"].into_iter().flat_map(|key| list(&self.value[key]).iter());
        let generated = generators.flat_map(|g| list(&g["files"]).iter().chain(list(&g["envs"])));
        lists
            .chain(patches)
            .chain(generated)
            .filter_map(Value::as_str)
            // `key=file` names the file.
            .map(|name| name.split_once('=').map_or(name, |(_, file)| file))
            .filter(|name| !name.contains("://") && !name.starts_with("git@") && !name.contains("?ref="))
            .collect()
    }
}

/// Every kustomization below a folder, in the order of the paths.
///
/// # Errors
/// A folder or file cannot be read, or is not YAML.
pub fn kustomizations(folder: &Path) -> Result<Vec<Kustomization>> {
    let mut found = Vec::new();
    for file in files(folder)? {
        if file.file_name().is_some_and(|name| NAMES.iter().any(|n| name == *n)) {
            let value = yaml_serde::from_str(&read(&file)?)
                .map_err(|e| crate::exit::broken(&file, e.location().map_or(0, |l| l.line()), e))?;
            found.push(Kustomization { folder: file.parent().unwrap_or(folder).to_owned(), file, value });
        }
    }
    Ok(found)
}

/// Every file below a folder, in order.
///
/// # Errors
/// A folder cannot be read.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(|e| crate::exit::broken(folder, 0, e))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() && !path.is_symlink() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

/// Those that no other builds on: what is applied.
#[must_use]
pub fn roots(all: &[Kustomization]) -> Vec<&Kustomization> {
    let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let used: BTreeSet<PathBuf> =
        all.iter().flat_map(|k| k.named().into_iter().map(move |name| canonical(&k.folder.join(name)))).collect();
    all.iter().filter(|k| !k.is_component() && !used.contains(&canonical(&k.folder))).collect()
}

/// Files that no kustomization names, and names that lead nowhere. `apart` are read by people or programs.
#[must_use]
pub fn unreferenced(all: &[Kustomization], files: &[PathBuf], apart: &[PathBuf]) -> Vec<Fault> {
    let (mut faults, mut used) = (Vec::new(), BTreeSet::new());
    for kustomization in all {
        for name in kustomization.named() {
            match kustomization.folder.join(name).canonicalize() {
                Ok(path) => drop(used.insert(path)),
                Err(_) => {
                    let text = read(&kustomization.file).unwrap_or_default();
                    let line = text.lines().position(|line| line.contains(name)).map_or(0, |n| n + 1);
                    faults.push(Fault::new(&kustomization.file, line, "missing-file", format!("{name} is not there")));
                }
            }
        }
    }
    for file in files {
        let is_root = file.file_name().is_some_and(|name| NAMES.iter().any(|n| name == *n));
        let path = file.canonicalize().unwrap_or_else(|_| file.clone());
        if !is_root && !used.contains(&path) && !apart.contains(&path) {
            faults.push(Fault::new(file, 0, "unreferenced-file", "no kustomization names it"));
        }
    }
    faults
}

/// Patches that address a list by an index: another patch, or a change of the base, moves it.
///
/// # Errors
/// A patch cannot be read.
pub fn patched_by_index(all: &[Kustomization]) -> Result<Vec<Fault>> {
    let mut faults = Vec::new();
    for kustomization in all {
        for patch in ["patches", "patchesJson6902"].into_iter().flat_map(|key| list(&kustomization.value[key])) {
            let (file, text) = match (patch["patch"].as_str(), patch["path"].as_str()) {
                (Some(text), _) => (kustomization.file.clone(), text.to_owned()),
                (None, Some(path)) => {
                    let file = kustomization.folder.join(path);
                    // That it is missing is another fault.
                    if !file.exists() {
                        continue;
                    }
                    (file.clone(), read(&file)?)
                }
                (None, None) => {
                    faults.push(Fault::new(
                        &kustomization.file,
                        0,
                        "empty-patch",
                        "a patch has neither patch nor path",
                    ));
                    continue;
                }
            };
            let whole = read(&file)?;
            for found in text.lines().filter(|line| addresses_index(line)) {
                let line = whole.lines().position(|line| line.trim() == found.trim()).map_or(0, |n| n + 1);
                faults.push(Fault::new(
                    &file,
                    line,
                    "patch-by-index",
                    format!("{} addresses a list by its index", found.trim()),
                ));
            }
        }
    }
    Ok(faults)
}

fn addresses_index(line: &str) -> bool {
    let path = line.trim().trim_start_matches("- ").strip_prefix("path:").map(|p| p.trim().trim_matches(['"', '\'']));
    let is_index = |part: &str| part == "-" || (!part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    path.is_some_and(|path| path.starts_with('/') && path.split('/').any(is_index))
}
