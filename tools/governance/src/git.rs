//! Older versions of files, from the `git` program: read only, bounded, and never a guess.
//!
//! A shallow clone ends early, and what lies before its end is unknown; [`Known`] keeps that apart from "not there".

use crate::artifact::INPUT_BYTES_MAX;
use agentforge_terminal::{Failure, Result};
use jiff::Timestamp;
use std::{
    ffi::OsStr,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Of git's messages only so much is repeated.
const MESSAGE_BYTES_MAX: u64 = 2_000;

/// What the history says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known<T> {
    /// It says this.
    Yes(T),
    /// It does not reach back that far.
    Unknown,
}

/// A repository, as the `git` program finds it from a folder.
#[derive(Clone, Debug)]
pub struct Repository {
    root: PathBuf,
}

impl Repository {
    /// The repository that a folder belongs to.
    ///
    /// # Errors
    /// There is none, or no `git` program.
    pub fn of(folder: &Path) -> Result<Self> {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let root = said(folder, ["rev-parse", "--show-toplevel"])?;
        Ok(Self { root: PathBuf::from(root.trim_end()) })
    }

    /// Its top folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The commit that a name stands for, as 40 hexadecimal digits; `None` when there is no such commit.
    ///
    /// # Errors
    /// git cannot be run.
    pub fn commit(&self, name: &str) -> Result<Option<String>> {
        let name = format!("{name}^{{commit}}");
        answer(&self.root, ["rev-parse", "--quiet", "--verify", "--end-of-options", &name])
            .map(|found| found.map(|text| text.trim_end().to_owned()))
    }

    /// The text of a file at a commit; `None` when it was not there.
    ///
    /// # Errors
    /// There is no such commit, the file is outside the repository or too large, or git cannot be run.
    pub fn show(&self, name: &str, file: &Path) -> Result<Option<String>> {
        let commit = self.commit(name)?.ok_or_else(|| Failure::usage(format!("there is no commit {name:?} here")))?;
        let object = format!("{commit}:{}", self.inside(file)?);
        if answer(&self.root, ["cat-file", "-e", &object])?.is_none() {
            return Ok(None);
        }
        said(&self.root, ["cat-file", "blob", &object]).map(Some)
    }

    /// The last commit on the first line of history that is not younger than `moment`.
    ///
    /// # Errors
    /// git cannot be run.
    pub fn commit_at(&self, moment: Timestamp) -> Result<Known<Option<String>>> {
        let before = format!("--before={}", moment.as_second());
        let found = said(&self.root, ["rev-list", "-1", "--first-parent", &before, "HEAD"])?;
        match found.trim_end() {
            "" if self.is_shallow()? => Ok(Known::Unknown),
            "" => Ok(Known::Yes(None)),
            commit => Ok(Known::Yes(Some(commit.to_owned()))),
        }
    }

    /// Whether older commits were left out of this clone.
    ///
    /// # Errors
    /// git cannot be run.
    pub fn is_shallow(&self) -> Result<bool> {
        Ok(said(&self.root, ["rev-parse", "--is-shallow-repository"])?.trim_end() == "true")
    }

    /// The file's name inside the repository, as git writes it.
    fn inside(&self, file: &Path) -> Result<String> {
        let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        // Links in the way to the folder are git's own view; the file itself may be gone.
        let folder = absolute.parent().and_then(|folder| folder.canonicalize().ok());
        let absolute = match (folder, absolute.file_name()) {
            (Some(folder), Some(name)) => folder.join(name),
            _ => absolute,
        };
        let inside = absolute.strip_prefix(&self.root).ok().and_then(Path::to_str);
        let outside = || Failure::usage(format!("{} is not in the repository {}", file.display(), self.root.display()));
        inside.map(str::to_owned).ok_or_else(outside)
    }
}

/// What git says; a failure when it fails.
fn said<S: AsRef<OsStr>>(folder: &Path, words: impl IntoIterator<Item = S>) -> Result<String> {
    let (text, problem) = run(folder, words)?;
    match problem {
        None => Ok(text),
        Some(problem) => Err(Failure::new(format!("git in {}: {problem}", folder.display()))),
    }
}

/// What git says; `None` when it says no.
fn answer<S: AsRef<OsStr>>(folder: &Path, words: impl IntoIterator<Item = S>) -> Result<Option<String>> {
    run(folder, words).map(|(text, problem)| problem.is_none().then_some(text))
}

fn run<S: AsRef<OsStr>>(folder: &Path, words: impl IntoIterator<Item = S>) -> Result<(String, Option<String>)> {
    let failed = |e: std::io::Error| Failure::new(format!("git cannot be run: {e}")).hint("install git");
    let mut git = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(words)
        .env("LC_ALL", "C")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_NO_LAZY_FETCH", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let stderr = git.stderr.take().expect("stderr was piped");
    // Read at the same time, else git waits for the one while we read the other.
    let problem = std::thread::spawn(move || {
        let mut text = Vec::new();
        let mut stderr = stderr;
        let _ = (&mut stderr).take(MESSAGE_BYTES_MAX).read_to_end(&mut text);
        // The rest is read away.
        let _ = std::io::copy(&mut stderr, &mut std::io::sink());
        String::from_utf8_lossy(&text).trim().to_owned()
    });
    let mut text = Vec::new();
    let mut stdout = git.stdout.take().expect("stdout was piped").take(INPUT_BYTES_MAX + 1);
    let read = stdout.read_to_end(&mut text);
    // Dropped before waiting: git that still writes ends then.
    drop(stdout);
    let status = git.wait().map_err(failed)?;
    let problem = problem.join().unwrap_or_default();
    read.map_err(failed)?;
    if text.len() as u64 > INPUT_BYTES_MAX {
        return Err(Failure::new(format!("git gives more than the limit of {INPUT_BYTES_MAX} bytes")));
    }
    let text = String::from_utf8(text).map_err(|_| Failure::new("git gives a file that is not UTF-8"))?;
    let problem = if problem.is_empty() { status.to_string() } else { problem };
    Ok((text, (!status.success()).then_some(problem)))
}
