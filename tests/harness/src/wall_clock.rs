//! A wall clock that a test sets forward and back under running processes. The machine's clock stays as it is.
//!
//! A small library, compiled once and loaded before libc, answers for the wall clock of the processes that are
//! started with [`WallClock::envs`].

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

const SOURCE: &str = include_str!("wall_clock.c");

/// One clock, for as many processes as a test starts with it.
pub struct WallClock {
    dir: TempDir,
    step: File,
}

impl WallClock {
    /// A clock that shows what the machine's does.
    ///
    /// # Panics
    /// When the C compiler, without which nothing of the workspace is built, does not compile the library.
    #[expect(clippy::new_without_default, reason = "it compiles and makes files, which no default should")]
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("agentforge-clock-").tempdir().expect("a temporary folder");
        let source = dir.path().join("wall_clock.c");
        std::fs::write(&source, SOURCE).expect("the source is written");
        let made = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(dir.path().join("wall_clock.so"))
            .arg(&source)
            .output()
            .expect("cc is there");
        assert!(made.status.success(), "cc: {}", String::from_utf8_lossy(&made.stderr));
        let path = dir.path().join("step");
        std::fs::write(&path, 0_i64.to_ne_bytes()).expect("the step is written");
        let step = File::options().write(true).open(path).expect("the step is there");
        Self { dir, step }
    }

    /// Variables of a process that lives by this clock, ahead of it by `skew` milliseconds.
    pub fn envs(&self, skew: i64) -> Vec<(String, String)> {
        let path = |name| -> PathBuf { self.dir.path().join(name) };
        vec![
            ("LD_PRELOAD".into(), path("wall_clock.so").display().to_string()),
            ("HARNESS_CLOCK".into(), path("step").display().to_string()),
            ("HARNESS_CLOCK_SKEW".into(), skew.to_string()),
        ]
    }

    /// Sets the clock so that it shows this moment now, milliseconds since 1970.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn set(&self, shown: i64) {
        let step = shown - real();
        self.step.write_all_at(&step.to_ne_bytes(), 0).expect("the step is written");
    }
}

/// What the machine's clock shows, milliseconds since 1970.
fn real() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).expect("our time is small")
}
