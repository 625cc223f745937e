//! SIGTERM and SIGINT: the first asks for a stop, the second ends the process at once.

use crate::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing::warn;

/// The exit code after a second signal: what a shell reports for an interrupted command.
const EXIT_SECOND_SIGNAL: i32 = 130;

/// Requests to stop that come from outside the process.
#[derive(Debug)]
pub struct Signals {
    first: watch::Receiver<Option<&'static str>>,
    /// Keeps the channel of [`Signals::never`] open.
    _sender: Option<watch::Sender<Option<&'static str>>>,
}

impl Signals {
    /// Takes over SIGTERM and SIGINT for the process; needs a running tokio runtime. From here on
    /// a second signal exits with 130, whatever the process is doing.
    ///
    /// # Errors
    /// [`Error::Signals`] when the handlers cannot be installed.
    pub fn install() -> Result<Self, Error> {
        let terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
        let (sender, first) = watch::channel(None);
        tokio::spawn(watch_signals(terminate, interrupt, sender));
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

async fn watch_signals(mut terminate: Signal, mut interrupt: Signal, sender: watch::Sender<Option<&'static str>>) {
    let name = next(&mut terminate, &mut interrupt).await;
    sender.send_replace(Some(name));
    let name = next(&mut terminate, &mut interrupt).await;
    warn!(signal = name, "second signal, exiting at once");
    std::process::exit(EXIT_SECOND_SIGNAL);
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
