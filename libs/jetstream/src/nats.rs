//! The connection: created once, kept forever, observed through a watch and a gauge.
//!
//! Relies on async-nats to reconnect and to subscribe again. Never exits, never gives up; a service
//! that starts before its NATS waits here. Owns what the client does not: jitter, a count of
//! connections ("epoch") by which others know that what they had in flight is gone, and replies.

mod together;

use crate::{
    backoff::full_jitter,
    config::{Auth, NatsConfig},
    denied::Denied,
    link::Link,
    metrics::NATS_CONNECTED,
    missing::Missing,
    nkey,
    replies::{self, NoReply, Replies},
    server_version::{OLDEST, REPAIRED, Support},
    trouble::{Trouble, trouble},
};
use agentforge_config::{ExposeSecret, without_credentials};
use async_nats::{Client, ConnectOptions, Event, HeaderMap, Message, connection::State, jetstream};
use bytes::Bytes;
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{Instant, MissedTickBehavior, interval, timeout, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

/// First ceiling of the reconnect backoff.
const RECONNECT_BASE: Duration = Duration::from_millis(100);
/// A dead peer is noticed after two pings without an answer: within three of these.
const PING: Duration = Duration::from_secs(5);
/// TCP, TLS and login of one try.
const CONNECT: Duration = Duration::from_secs(5);
/// One request to the JetStream API; creating a stream on a slow disk takes seconds.
const API: Duration = Duration::from_secs(10);
/// How long closing may take, each for what is unsent and for the end of the connection.
const DRAIN: Duration = Duration::from_secs(5);
/// How often the reported state is compared with the client's: its events may be dropped under load.
const RECHECK: Duration = Duration::from_secs(1);

/// Why a connection could not be set up. A server that is unavailable is not an error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file named by the settings cannot be used.
    #[error("read {} (from {key})", path.display())]
    File {
        /// The setting that names the file.
        key: &'static str,
        /// The file, as the setting names it.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The client refused the options.
    #[error("set up the NATS client")]
    Client(#[source] async_nats::ConnectError),
    /// The client ended before it was set up.
    #[error("subscribe to replies")]
    Subscribe(#[source] async_nats::SubscribeError),
    /// What was sent last may not have reached the server.
    #[error("drain the NATS connection within {0:?}")]
    Drain(Duration),
}

/// A connection to NATS. Clones share it; it ends with [`Nats::drain`] or with its last clone.
#[derive(Clone)]
pub struct Nats {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    jetstream: jetstream::Context,
    link: watch::Receiver<Link>,
    connected: watch::Receiver<bool>,
    missing: Missing,
    shared: Arc<Shared>,
    replies: Arc<Replies>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats").field("link", &*self.inner.link.borrow()).finish_non_exhaustive()
    }
}

impl Nats {
    /// Sets the client up and returns at once; the connection is made as soon as a server answers,
    /// and again whenever it breaks. `name` is shown in the server's connection list.
    ///
    /// # Errors
    /// Files named by the settings that cannot be read, or options that the client refuses.
    pub async fn connect(config: &NatsConfig, name: &str) -> Result<Self, Error> {
        let servers: Vec<_> = config.servers.iter().map(|s| without_credentials(s.as_url_str())).collect();
        let shared = Arc::new(Shared::new(servers.join(", "), config.tls.authorities()));
        let (events, first) = (shared.clone(), AtomicBool::new(true));
        let cap = config.max_reconnect_wait;
        let options = login(config)
            .await?
            .name(name)
            .retry_on_initial_connect()
            .max_reconnects(None)
            .connection_timeout(CONNECT)
            .ping_interval(PING)
            .reconnect_delay_callback(move |attempt| {
                if first.swap(false, Ordering::Relaxed) {
                    Duration::ZERO
                } else {
                    full_jitter(attempt, RECONNECT_BASE, cap)
                }
            })
            .event_callback(move |event| {
                events.on_event(&event);
                std::future::ready(())
            });
        let options = match &config.inbox_prefix {
            Some(prefix) => options.custom_inbox_prefix(prefix.clone()),
            None => options,
        };
        let options = with_tls(options, config).await?;
        info!(?servers, name, "connecting to NATS");
        let client = options.connect(config.servers.as_slice()).await.map_err(Error::Client)?;
        Self::around(client, shared).await
    }

    async fn around(client: Client, shared: Arc<Shared>) -> Result<Self, Error> {
        let (replies, subscription) = Replies::new(&client).await.map_err(Error::Subscribe)?;
        let link = shared.link.subscribe();
        let connected = shared.connected.subscribe();
        let tasks = [
            AbortOnDropHandle::new(tokio::spawn(replies::run(replies.clone(), subscription, link.clone()))),
            AbortOnDropHandle::new(tokio::spawn(recheck(client.clone(), shared.clone()))),
        ];
        let jetstream = jetstream::ContextBuilder::new().timeout(API).ack_timeout(API).build(client.clone());
        let missing = Missing::default();
        Ok(Self {
            inner: Arc::new(Inner { client, jetstream, link, connected, missing, shared, replies, _tasks: tasks }),
        })
    }

    /// The client, for core NATS.
    pub fn client(&self) -> &Client {
        &self.inner.client
    }
    /// JetStream's API; each request is bounded by 10 s.
    pub fn jetstream(&self) -> &jetstream::Context {
        &self.inner.jetstream
    }
    /// Whether the connection is up now.
    pub fn is_connected(&self) -> bool {
        self.inner.link.borrow().connected
    }
    /// Reports when the connection is established and lost. What it finds when it is made is news to it as well, so a
    /// loop makes it once, before its first turn.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.inner.connected.clone()
    }
    /// Waits until the connection is up; `false` when it is not within `limit`.
    pub async fn wait_connected(&self, limit: Duration) -> bool {
        self.epoch_by(Instant::now() + limit).await.is_some()
    }
    /// Why there is no connection, with the address and the settings to look at; `None` while there is one.
    pub fn trouble(&self) -> Option<Trouble> {
        (!self.is_connected()).then(|| self.inner.shared.trouble())
    }
    /// What somebody wanted to use on the server and did not find.
    pub fn missing(&self) -> &Missing {
        &self.inner.missing
    }
    /// Subjects on which the server let us not publish.
    pub fn denied(&self) -> &Denied {
        &self.inner.shared.denied
    }
    /// Whether the server that is connected, or was last, will do.
    pub fn support(&self) -> Support {
        Support::of(&self.inner.client.server_info().version)
    }
    /// What readiness reports about the connection: whether it can be used, and in words.
    pub fn readiness(&self) -> (bool, String) {
        match self.trouble() {
            None => (self.support().is_usable(), self.support().to_string()),
            Some(trouble) => (false, trouble.reason),
        }
    }
    /// The largest message the server takes, headers and payload together, in bytes.
    pub fn max_payload(&self) -> usize {
        self.inner.client.max_payload()
    }

    /// Waits until the server has processed all that was sent before. Returns whether it did within `limit`.
    pub async fn barrier(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let Some(epoch) = self.epoch_by(deadline).await else { return false };
        // A message to ourselves comes back behind everything that this connection sent before it.
        let (subject, pending) = self.inner.replies.expect(epoch, deadline, None);
        let sent = timeout_at(deadline, self.inner.client.publish(subject, Bytes::new())).await;
        matches!(sent, Ok(Ok(()))) && pending.await.is_ok()
    }

    /// Makes sure that the server has what was sent, then closes the connection for good.
    ///
    /// # Errors
    /// When the server did not confirm in 5 s; the connection is closed all the same.
    pub async fn drain(&self) -> Result<(), Error> {
        // The client's own drain waits for no answer of the server, so the barrier comes first.
        let confirmed = self.is_connected() && self.barrier(DRAIN).await;
        let mut link = self.link();
        let close = async {
            let _ = self.inner.client.drain().await;
            let _ = link.wait_for(|l| l.closed || !l.connected).await;
        };
        let closed = timeout(DRAIN, close).await.is_ok();
        if confirmed && closed { Ok(()) } else { Err(Error::Drain(DRAIN)) }
    }

    pub(crate) fn link(&self) -> watch::Receiver<Link> {
        self.inner.link.clone()
    }

    /// The connection's epoch once it is up; `None` when it is not by `deadline`.
    pub(crate) async fn epoch_by(&self, deadline: Instant) -> Option<u64> {
        let now = *self.inner.link.borrow();
        if now.connected {
            return Some(now.epoch);
        }
        let mut link = self.link();
        let up = timeout_at(deadline, link.wait_for(|l| l.connected)).await;
        up.ok().and_then(Result::ok).map(|l| l.epoch)
    }

    /// Sends with a place for the reply. Waits for the connection first: nothing is sent late.
    pub(crate) async fn send_request(
        &self,
        subject: async_nats::Subject,
        headers: Option<HeaderMap>,
        payload: Bytes,
        deadline: Instant,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<replies::Pending, SendError> {
        let epoch = self.epoch_by(deadline).await.ok_or(SendError::NotConnected)?;
        let (reply, pending) = self.inner.replies.expect(epoch, deadline, permit);
        let client = &self.inner.client;
        let sent = async {
            match headers {
                Some(headers) => client.publish_with_reply_and_headers(subject, reply.clone(), headers, payload).await,
                None => client.publish_with_reply(subject, reply.clone(), payload).await,
            }
        };
        let failed = match timeout_at(deadline, sent).await {
            Ok(Ok(())) => return Ok(pending),
            Ok(Err(refused)) => SendError::Refused(refused),
            Err(_) => SendError::NotConnected,
        };
        self.inner.replies.forget(&reply);
        Err(failed)
    }

    pub(crate) async fn request(
        &self,
        subject: async_nats::Subject,
        payload: Bytes,
        limit: Duration,
    ) -> Result<Message, SendError> {
        let pending = self.send_request(subject, None, payload, Instant::now() + limit, None).await?;
        pending.await.map_err(SendError::NoReply)
    }
}

/// Why a request got no reply.
#[derive(Debug)]
pub(crate) enum SendError {
    /// Nothing was sent.
    NotConnected,
    /// The client refused it: subject or size.
    Refused(async_nats::PublishError),
    /// It was sent.
    NoReply(NoReply),
}

async fn login(config: &NatsConfig) -> Result<ConnectOptions, Error> {
    let options = ConnectOptions::new();
    Ok(match &config.auth {
        // The client does not take them from an address itself.
        Auth::None => match config.servers.iter().find_map(|server| Some((server.username()?, server.password()?))) {
            Some((user, password)) => with_password(options, user, password),
            None => options,
        },
        Auth::UserPassword(user, password) => with_password(options, user, password.expose_secret()),
        Auth::Creds(path) => {
            let broken = |source| Error::File { key: "NATS_CREDS", path: path.clone(), source };
            options.credentials_file(path).await.map_err(broken)?
        }
        Auth::NKey(seed) if nkey::is_seed(seed.expose_secret()) => options.nkey(seed.expose_secret().to_owned()),
        Auth::NKey(path) => {
            // The value may be a mistyped seed: it is not repeated in the error.
            let broken = |source| Error::File { key: "NATS_NKEY", path: "the file it names".into(), source };
            nkey::options(path.expose_secret().into()).map_err(broken)?
        }
    })
}

fn with_password(options: ConnectOptions, user: &str, password: &str) -> ConnectOptions {
    let options = options.user_and_password(user.to_owned(), password.to_owned());
    match inbox_of(user) {
        Some(prefix) => options.custom_inbox_prefix(prefix),
        None => options,
    }
}

/// Where a user's replies go: below its own name, so that a server can restrict its subscriptions to those. `None` for
/// a name that is not a subject token.
fn inbox_of(user: &str) -> Option<String> {
    let is_token = !user.is_empty() && user.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    is_token.then(|| format!("_INBOX.{user}"))
}

async fn with_tls(mut options: ConnectOptions, config: &NatsConfig) -> Result<ConnectOptions, Error> {
    if let Some(ca) = &config.tls.ca {
        pem("NATS_TLS_CA", ca, "CERTIFICATE").await?;
        options = options.add_root_certificates(ca.clone()).require_tls(true);
    }
    if let Some((cert, key)) = &config.tls.client {
        pem("NATS_TLS_CERT", cert, "CERTIFICATE").await?;
        pem("NATS_TLS_KEY", key, "PRIVATE KEY").await?;
        options = options.add_client_certificate(cert.clone(), key.clone()).require_tls(true);
    }
    Ok(options)
}

/// The client reads the file at each connect and would retry forever with a missing or empty one.
async fn pem(key: &'static str, path: &Path, what: &str) -> Result<(), Error> {
    let broken = |source| Error::File { key, path: path.to_owned(), source };
    let text = tokio::fs::read(path).await.map_err(broken)?;
    let text = String::from_utf8_lossy(&text);
    if text.lines().any(|line| line.starts_with("-----BEGIN ") && line.contains(what)) {
        return Ok(());
    }
    Err(broken(std::io::Error::new(std::io::ErrorKind::InvalidData, format!("it has no {what} in PEM"))))
}

/// What the client's events are turned into.
struct Shared {
    /// Where NATS is, without credentials.
    servers: String,
    /// Whose certificates are trusted, in words.
    authorities: String,
    /// What the last try to connect failed with; `None` while connected.
    last_error: Mutex<Option<String>>,
    link: watch::Sender<Link>,
    connected: watch::Sender<bool>,
    /// A requested end is not reported.
    draining: AtomicBool,
    denied: Denied,
}

impl Shared {
    fn new(servers: String, authorities: String) -> Self {
        process_gauge(1, 0);
        Self {
            servers,
            authorities,
            last_error: Mutex::default(),
            link: watch::Sender::default(),
            connected: watch::Sender::default(),
            draining: AtomicBool::new(false),
            denied: Denied::default(),
        }
    }

    fn trouble(&self) -> Trouble {
        let last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        trouble(&self.servers, &self.authorities, last.as_deref())
    }

    /// An attempt to connect failed. Reports each reason once per outage.
    fn note_failure(&self, error: &str) {
        let mut last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_deref() == Some(error) {
            return tracing::debug!(error, "NATS client error");
        }
        *last = Some(error.to_owned());
        let Trouble { reason, .. } = trouble(&self.servers, &self.authorities, Some(error));
        warn!(reason, "no connection to NATS; trying again");
    }

    fn on_event(&self, event: &Event) {
        match event {
            Event::Connected => self.set_connected(true),
            Event::Disconnected => self.set_connected(false),
            Event::Closed => {
                self.link.send_modify(|l| l.closed = true);
                self.set_connected(false);
            }
            Event::LameDuckMode => info!("the NATS server asks its clients to leave"),
            Event::ServerError(error) => {
                self.denied.note(&error.to_string());
                warn!(%error, "NATS server error");
            }
            // Each failed try to connect ends up here.
            Event::ClientError(async_nats::ClientError::Other(error)) if !self.link.borrow().connected => {
                self.note_failure(error);
            }
            Event::ClientError(error) => tracing::debug!(%error, "NATS client error"),
            Event::SlowConsumer(subscription) => {
                warn!(subscription, "messages dropped: a subscription is read too slowly")
            }
            Event::Draining => self.draining.store(true, Ordering::Relaxed),
        }
    }

    fn set_connected(&self, connected: bool) {
        let mut was = false;
        self.link.send_modify(|l| {
            was = l.connected;
            // A second "connected" in a row means that the event between them was dropped.
            l.epoch += u64::from(connected);
            l.connected = connected;
        });
        if was == connected {
            return;
        }
        if connected {
            *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        self.connected.send_replace(connected);
        process_gauge(0, if connected { 1 } else { -1 });
        match connected {
            true => info!("connected to NATS"),
            false if self.draining.load(Ordering::Relaxed) => info!("the connection to NATS is closed"),
            false => warn!("not connected to NATS"),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        process_gauge(-1, -i64::from(self.link.borrow().connected));
    }
}

/// One gauge for all connections of the process: 1 while all of them are up.
fn process_gauge(all: i64, up: i64) {
    static COUNTS: Mutex<(i64, i64)> = Mutex::new((0, 0));
    let mut counts = COUNTS.lock().expect("nothing panics under this lock");
    counts.0 += all;
    counts.1 += up;
    NATS_CONNECTED.set(&[], if counts.0 > 0 && counts.0 == counts.1 { 1.0 } else { 0.0 });
}

/// Says once of each server that it is outside of what was tried.
fn tell_version(client: &Client, last: &mut String) {
    let version = client.server_info().version;
    if version == *last {
        return;
    }
    match Support::of(&version) {
        Support::Tried => info!(version, "NATS server"),
        Support::Newer(_) => warn!(version, "the NATS server is newer than the tested versions"),
        Support::Vulnerable(_) => {
            warn!(version, "the NATS server has published vulnerabilities: use {REPAIRED} or newer")
        }
        Support::TooOld(_) => error!(version, "the NATS server is too old: {OLDEST} or newer is needed"),
    }
    *last = version;
}

/// Corrects what dropped events left wrong; ends with the connection.
async fn recheck(client: Client, shared: Arc<Shared>) {
    let mut tick = interval(RECHECK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut differed, mut version) = (false, String::new());
    loop {
        tick.tick().await;
        if shared.link.borrow().connected {
            tell_version(&client, &mut version);
        }
        let link = *shared.link.borrow();
        let connected = client.connection_state() == State::Connected && !link.closed;
        // Twice in a row: once may be an event on its way.
        let differs = connected != link.connected;
        if differs && differed {
            shared.set_connected(connected);
        }
        differed = differs && !differed;
    }
}
