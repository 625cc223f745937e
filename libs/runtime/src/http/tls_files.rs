//! TLS of a listener whose files may be renewed: they are read every few seconds, and a changed pair serves the next
//! handshakes. Connections that are open keep theirs.
//!
//! A pair that cannot be used, such as a new certificate whose key is not written yet, changes nothing; it is logged and
//! shown in the metrics until it can. Contents are compared, and not times: Kubernetes swaps a symlink of a directory.

use super::server_tls::{Contents, ServerTls};
use crate::error_text::chain;
use crate::metrics::{TLS_EXPIRY, TLS_FILES_UNUSABLE, TLS_RELOADS};
use crate::{Error, OnEnd, Runtime};
use agentforge_config::Common;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How often the files are read: a few KiB each time, and far more often than they change.
const POLL: Duration = Duration::from_secs(5);

/// TLS of one listener. Cheap to clone; clones are the same.
#[derive(Clone, Debug)]
pub struct Tls(Arc<RwLock<Arc<ServerConfig>>>);

impl Tls {
    /// TLS that never changes.
    pub fn fixed(config: Arc<ServerConfig>) -> Self {
        Self(Arc::new(RwLock::new(config)))
    }

    /// TLS of the files that `tls` names, watched until the stop of the service.
    ///
    /// # Errors
    /// [`Error::Pem`] and [`Error::Tls`] name the file that cannot be used and its setting.
    pub fn open(runtime: &Runtime, tls: ServerTls) -> Result<Self, Error> {
        let contents = Contents::read(&tls)?;
        let current = Self::fixed(contents.config(&tls)?);
        let watch = Watch { service: runtime.name(), tls, contents, current: current.clone(), told: None };
        watch.show();
        let stop = runtime.stopping();
        runtime.supervisor().spawn("tls-files", OnEnd::Stop, async move {
            watch.run(stop).await;
            Ok(())
        });
        Ok(current)
    }

    /// TLS of a listener for callers, as the common settings say; `None` without.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn of(runtime: &Runtime, common: &Common, protocols: &'static [&'static [u8]]) -> Result<Option<Self>, Error> {
        ServerTls::of(common, protocols).map(|tls| Self::open(runtime, tls)).transpose()
    }

    /// What the next handshake uses.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// Keeps the TLS of a listener equal to its files.
struct Watch {
    service: &'static str,
    tls: ServerTls,
    /// What is used.
    contents: Contents,
    current: Tls,
    /// What was last said to be wrong with the files; `None` if they can be used.
    told: Option<String>,
}

impl Watch {
    async fn run(mut self, stop: CancellationToken) {
        let mut tick = interval(POLL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            let tls = self.tls.clone();
            let Ok(read) = tokio::task::spawn_blocking(move || Contents::read(&tls)).await else { continue };
            self.take(read);
        }
    }

    fn take(&mut self, read: Result<Contents, Error>) {
        let labels = [self.service, self.tls.cert.1];
        let made = match read {
            Ok(contents) if contents == self.contents => Ok(None),
            Ok(contents) => contents.config(&self.tls).map(|config| Some((contents, config))),
            Err(error) => Err(error),
        };
        match made {
            Ok(changed) => {
                if self.told.take().is_some() {
                    TLS_FILES_UNUSABLE.set(&labels, 0.0);
                }
                let Some((contents, config)) = changed else { return };
                *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = config;
                self.contents = contents;
                self.show();
                TLS_RELOADS.inc(&[labels[0], labels[1], "used"]);
                info!(file = %self.tls.cert.0.display(), setting = labels[1], "the renewed certificate is in use");
            }
            Err(error) => {
                let error = chain(&error);
                if self.told.as_ref() == Some(&error) {
                    return;
                }
                TLS_RELOADS.inc(&[labels[0], labels[1], "refused"]);
                TLS_FILES_UNUSABLE.set(&labels, 1.0);
                warn!(setting = labels[1], error, "the changed TLS files cannot be used; keeping the ones before");
                self.told = Some(error);
            }
        }
    }

    fn show(&self) {
        let labels = [self.service, self.tls.cert.1];
        TLS_RELOADS.begin(&labels);
        TLS_FILES_UNUSABLE.set(&labels, 0.0);
        if let Some(expiry) = self.contents.expiry() {
            TLS_EXPIRY.set(&labels, expiry as f64);
        }
    }
}
