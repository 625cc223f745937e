//! Waiting for a part of the stack: said once when it takes long, given up in the end, both times with the part's
//! name and the last line of its log.

use crate::child::log_tail;
use agentforge_terminal::{Failure, Result, warn};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// What takes longer is said.
const SAY_AFTER: Duration = Duration::from_secs(10);

/// The file that a server writes when it listens, with its ports. It is named after the server's program, which may
/// have any name, and its process id.
pub fn ports_file(folder: &Path, pid: u32) -> Option<PathBuf> {
    let end = format!("_{pid}.ports");
    let mut files = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    files.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(&end)))
}

/// Waits for one part.
pub struct Patience<'a> {
    part: &'a str,
    /// What it writes, where that is a file of its own.
    log: Option<&'a Path>,
    say_after: Duration,
    limit: Duration,
    began: Instant,
    said: bool,
}

impl<'a> Patience<'a> {
    /// From now on.
    pub fn new(part: &'a str, log: Option<&'a Path>, limit: Duration) -> Self {
        Self { part, log, say_after: SAY_AFTER, limit, began: Instant::now(), said: false }
    }

    /// Says it later than usual: after a part that says it itself.
    #[must_use]
    pub fn say_after(mut self, after: Duration) -> Self {
        self.say_after = after;
        self
    }

    /// Waits between two checks; `why` says what the last one saw.
    ///
    /// # Errors
    /// It has taken too long.
    pub async fn wait(&mut self, pause: Duration, why: &str) -> Result {
        let took = self.began.elapsed();
        if took >= self.limit {
            return Err(Failure::new(self.sentence(self.limit, why)));
        }
        if took >= self.say_after && !self.said {
            self.said = true;
            warn(self.sentence(self.say_after, why));
        }
        sleep(pause).await;
        Ok(())
    }

    fn sentence(&self, after: Duration, why: &str) -> String {
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        let seconds = after.as_secs();
        format!("{} is not ready after {seconds} s{why}{}", self.part, self.log.map(last_line).unwrap_or_default())
    }
}

/// The last line of a log, with its path.
pub fn last_line(log: &Path) -> String {
    match log_tail(log, 1) {
        Ok(line) if !line.is_empty() => format!("; the last line of {}: {line}", log.display()),
        _ => format!("; {} is empty", log.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_takes_too_long_is_named_with_the_last_line_of_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("part.log");
        std::fs::write(&log, "first\nthe port is taken\n\n").unwrap();
        let mut patience =
            Patience::new("nats-server", Some(&log), Duration::from_secs(2)).say_after(Duration::from_secs(1));
        let mut said = Vec::new();
        let failure = loop {
            match patience.wait(Duration::from_millis(100), "it does not listen").await {
                Ok(()) => said.push(patience.said),
                Err(failure) => break failure.to_string(),
            }
        };
        assert_eq!((said.first(), said.last()), (Some(&false), Some(&true)));
        for part in ["nats-server is not ready after 2 s: it does not listen", "part.log: the port is taken"] {
            assert!(failure.contains(part), "{failure}");
        }
        assert!(last_line(&folder.path().join("none")).contains("is empty"));
    }

    #[test]
    fn the_ports_file_is_found_whatever_the_program_is_called() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["nats-server-2.14.9_71.ports", "nats-server_171.ports", "nats-server_71.pid"] {
            std::fs::write(folder.path().join(name), "{}").unwrap();
        }
        let found = |pid| ports_file(folder.path(), pid).map(|path| path.file_name().unwrap().to_owned());
        assert_eq!(found(71), Some("nats-server-2.14.9_71.ports".into()));
        assert_eq!(found(171), Some("nats-server_171.ports".into()));
        assert_eq!(found(1), None);
    }
}
