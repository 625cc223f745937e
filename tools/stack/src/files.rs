//! The files of the place where `dev` was started: what git knows, else what is in the folder.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A demo, not a benchmark.
pub const FILES_MAX: usize = 300;
/// Larger files are left out.
const FILE_MAX_BYTES: u64 = 16 << 20;
/// Folders looked into without git.
const FOLDERS_MAX: usize = 2_000;
/// Folders that are not worth hashing.
const SKIPPED: [&str; 4] = ["target", "node_modules", "__pycache__", "venv"];

/// Regular files under `root`, relative to it, sorted, at most [`FILES_MAX`]; nothing of the folder
/// `left_out`, which is the data directory: its files change while they are read.
pub fn list(root: &Path, left_out: &Path) -> Vec<String> {
    let mut files = from_git(root).unwrap_or_else(|| walk(root, left_out));
    files.retain(|f| {
        let path = root.join(f);
        !path.starts_with(left_out) && path.symlink_metadata().is_ok_and(|m| m.is_file() && m.len() <= FILE_MAX_BYTES)
    });
    files.sort();
    files.truncate(FILES_MAX);
    files
}

/// Tracked files, and new ones that are not ignored.
fn from_git(root: &Path) -> Option<Vec<String>> {
    let out = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let files = out.stdout.split(|b| *b == 0).filter_map(|name| String::from_utf8(name.to_vec()).ok());
    let files: Vec<String> = files.filter(|name| !name.is_empty()).collect();
    (out.status.success() && !files.is_empty()).then_some(files)
}

fn walk(root: &Path, left_out: &Path) -> Vec<String> {
    let (mut files, mut folders) = (Vec::new(), vec![PathBuf::new()]);
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        if root.join(&folder) == left_out {
            continue;
        }
        seen += 1;
        if seen > FOLDERS_MAX || files.len() >= FILES_MAX {
            break;
        }
        for entry in std::fs::read_dir(root.join(&folder)).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|n| !n.starts_with('.')) else { continue };
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && !SKIPPED.contains(&name) => folders.push(folder.join(name)),
                Ok(kind) if kind.is_file() => files.extend(folder.join(name).to_str().map(str::to_owned)),
                _ => {}
            }
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_git_the_folder_is_walked_and_bounded() {
        let home = tempfile::tempdir().unwrap();
        for name in ["a.txt", "sub/b.txt", ".hidden/c.txt", "target/d.txt", "data/e.txt"] {
            let path = home.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        std::os::unix::fs::symlink("a.txt", home.path().join("link")).unwrap();
        let data = home.path().join("data");
        assert_eq!(list(home.path(), &data), ["a.txt", "sub/b.txt"]);
        for n in 0..FILES_MAX + 50 {
            std::fs::write(home.path().join(format!("n{n:04}")), "").unwrap();
        }
        assert_eq!(list(home.path(), &data).len(), FILES_MAX);
    }
}
