//! SIGTERM, SIGINT and SIGHUP: the first asks for a stop, a second SIGTERM or SIGINT ends the process at once.
//!
//! A hang-up is a polite stop: a terminal that closes and its shell may both send one, so it is never taken for
//! impatience. A process that was started with SIGHUP ignored (`nohup`) keeps ignoring it.

use crate::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing::warn;

/// The exit code after a second signal: what a shell reports for an interrupted command.
const EXIT_SECOND_SIGNAL: i32 = 130;
const HANGUP: &str = "SIGHUP";

/// Requests to stop that come from outside the process.
#[derive(Debug)]
pub struct Signals {
    first: watch::Receiver<Option<&'static str>>,
    /// Keeps the channel of [`Signals::never`] open.
    _sender: Option<watch::Sender<Option<&'static str>>>,
}

impl Signals {
    /// Takes over SIGTERM, SIGINT and SIGHUP for the process; needs a running tokio runtime. From here on a second
    /// SIGTERM or SIGINT exits with 130, regardless of what the process is doing.
    ///
    /// # Errors
    /// [`Error::Signals`] when the handlers cannot be installed.
    pub fn install() -> Result<Self, Error> {
        let terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
        // A handler of ours would take the place of the "ignore" that `nohup` asked for.
        let hangup = if is_ignored(SignalKind::hangup()) {
            None
        } else {
            Some(signal(SignalKind::hangup()).map_err(Error::Signals)?)
        };
        let (sender, first) = watch::channel(None);
        tokio::spawn(Watch { terminate, interrupt, hangup }.run(sender));
        Ok(Self { first, _sender: None })
    }

    /// No signals: for tests and for hosts that stop by their token.
    pub fn never() -> Self {
        let (sender, first) = watch::channel(None);
        Self { first, _sender: Some(sender) }
    }

    /// Waits for the first signal and names it. Returns at once if it came before.
    pub async fn first(&self) -> &'static str {
        let mut first = self.first.clone();
        match first.wait_for(Option::is_some).await.ok().and_then(|name| *name) {
            Some(name) => name,
            // The watching task is gone with its runtime: there will be no signal.
            None => std::future::pending().await,
        }
    }
}

struct Watch {
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
}

impl Watch {
    async fn run(mut self, sender: watch::Sender<Option<&'static str>>) {
        let name = self.next().await;
        sender.send_replace(Some(name));
        let name = loop {
            let name = self.next().await;
            if name != HANGUP {
                break name;
            }
        };
        warn!(signal = name, "second signal, exiting at once");
        std::process::exit(EXIT_SECOND_SIGNAL);
    }

    async fn next(&mut self) -> &'static str {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = hangup => HANGUP,
        }
    }
}

/// Whether the process was started with this signal ignored, according to the kernel. Systems other than Linux do not
/// report it, and the signal is handled.
fn is_ignored(kind: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    mask >> (kind.as_raw_value() - 1) & 1 == 1
}
