//! Progress of long work: a bar where stderr is a terminal, else a plain line now and then.
//!
//! Never writes to stdout, so that output can be piped while progress is watched.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::{
    io::{IsTerminal, Write},
    sync::Mutex,
    time::{Duration, Instant},
};

/// A plain line at most this often.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// Counts towards an end that may be unknown.
pub struct Progress {
    bar: ProgressBar,
    plain: Option<Mutex<Instant>>,
    what: &'static str,
}

impl Progress {
    /// Starts to count `what` (a plural: `jobs`); `total` is `None` while it is unknown.
    pub fn new(what: &'static str, total: Option<u64>) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr_with_hz(12) } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(total, target);
        let template = match total {
            Some(_) => "  {bar:32.cyan/dim} {human_pos}/{human_len} {msg}  {rate}  {elapsed}",
            None => "  {spinner} {human_pos} {msg}  {rate}  {elapsed}",
        };
        let style = ProgressStyle::with_template(template).expect("the template is constant and tested");
        let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = write!(out, "{:.0}/s", state.per_sec());
        };
        bar.set_style(style.with_key("rate", rate));
        bar.set_message(what);
        let plain = (!terminal).then(|| Mutex::new(Instant::now()));
        Self { bar, plain, what }
    }

    /// Sets the count.
    pub fn set(&self, n: u64) {
        self.bar.set_position(n);
        let Some(last) = &self.plain else { return };
        let mut last = last.lock().expect("nothing panics under this lock");
        if last.elapsed() >= PLAIN_EVERY {
            *last = Instant::now();
            let total = self.bar.length().map(|t| format!("/{t}")).unwrap_or_default();
            let _ = writeln!(std::io::stderr(), "{n}{total} {}", self.what);
        }
    }

    /// Shows what it is doing besides the count.
    pub fn message(&self, text: String) {
        self.bar.set_message(text);
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_templates_are_valid() {
        Progress::new("jobs", Some(3)).set(1);
        Progress::new("jobs", None).set(1);
    }
}
