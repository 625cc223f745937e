//! A replay directory, a ledger and a server, and what a test asks them.

use agentforge_harness::{NatsOptions, NatsServer, Proc, eventually};
use agentforge_jetstream::{
    Nats, NatsConfig, subjects,
    topology::{EvidenceConfig, Maker, ensure_evidence},
};
use agentforge_ledger::{Entry, Event, files};
use agentforge_proto::evidence::Manifest;
use agentforge_runtime::Process;
use agentforge_syncdaemon::Status;
use async_nats::{Message, jetstream};
use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;

/// For everything that must happen.
pub const SOON: Duration = Duration::from_secs(30);
/// The site's name in tests.
pub const SITE: &str = "pier-7";

/// The directories of one site.
pub struct Site {
    dir: TempDir,
}

impl Site {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("agentforge-site-").tempdir().unwrap();
        fs::create_dir(dir.path().join("replay")).unwrap();
        Self { dir }
    }

    pub fn queue(&self) -> PathBuf {
        self.dir.path().join("replay")
    }

    pub fn ledger(&self) -> PathBuf {
        self.dir.path().join("ledger")
    }

    /// Puts a file in place as a writer should: written elsewhere, then renamed.
    pub fn put(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let (unfinished, path) = (self.dir.path().join("unfinished"), self.queue().join(name));
        fs::write(&unfinished, content).unwrap();
        fs::rename(unfinished, path).unwrap();
    }

    /// Starts the daemon against a server.
    pub async fn daemon(&self, url: &str, settings: &[(&str, &str)]) -> Daemon {
        let mut builder = Proc::builder(env!("CARGO_BIN_EXE_agentforge-syncdaemon"));
        for (key, value) in self.settings(url).iter().chain(&owned(settings)) {
            builder = builder.env(key, value);
        }
        let mut process = builder.start();
        let ready = process.ready(SOON).await;
        let http = ready["syncdaemon"]["http"].as_str().unwrap().to_owned();
        Daemon { process, http }
    }

    /// Starts the daemon as a user other than root that owns only the replay directory. Needs root.
    pub async fn daemon_of_nobody(&self, url: &str, settings: &[(&str, &str)]) -> Daemon {
        for dir in [self.queue(), self.ledger(), self.dir.path().join("run")] {
            fs::create_dir_all(&dir).unwrap();
            std::os::unix::fs::chown(&dir, Some(65534), Some(65534)).unwrap();
        }
        fs::set_permissions(self.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        // The build's folder may not be open to everybody.
        let copy = self.dir.path().join("syncdaemon");
        fs::copy(env!("CARGO_BIN_EXE_agentforge-syncdaemon"), &copy).unwrap();
        let ready = self.dir.path().join("run/ready.json");
        let mut builder = Proc::builder("setpriv")
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .arg(copy.to_str().unwrap());
        for (key, value) in self.settings(url).iter().chain(&owned(settings)) {
            builder = builder.env(key, value);
        }
        let process = builder.env("READY_FILE", ready.to_str().unwrap()).start();
        let ready: serde_json::Value = eventually(SOON, "the daemon is ready", || async {
            serde_json::from_slice(&fs::read(&ready).unwrap_or_default()).map_err(|e| e.to_string())
        })
        .await;
        let http = ready["syncdaemon"]["http"].as_str().unwrap().to_owned();
        Daemon { process, http }
    }

    /// The daemon's settings, except for what a test adds.
    pub fn settings(&self, url: &str) -> BTreeMap<String, String> {
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        [
            ("NATS_URL", url.to_owned()),
            ("SITE", SITE.to_owned()),
            ("SYNC_QUEUE_DIR", text(self.queue())),
            ("SYNC_LEDGER_DIR", text(self.ledger())),
            ("HTTP_PORT", "0".to_owned()),
            ("METRICS_PORT", "0".to_owned()),
            ("SYNC_SETTLE", "300ms".to_owned()),
            ("NATS_MAX_RECONNECT_WAIT", "300ms".to_owned()),
            ("EVIDENCE_MAX_BYTES", "256MiB".to_owned()),
            ("EVIDENCE_BLOBS_MAX_BYTES", "2GiB".to_owned()),
            ("LOG_LEVEL", "info".to_owned()),
            ("LOG_FORMAT", "json".to_owned()),
        ]
        .map(|(k, v)| (k.to_owned(), v))
        .into()
    }

    /// All existing files, including hidden ones, but no directories.
    pub fn files(&self) -> Vec<PathBuf> {
        fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                if entry.file_type().unwrap().is_dir() { walk(&entry.path(), found) } else { found.push(entry.path()) }
            }
        }
        let mut found = Vec::new();
        walk(&self.queue(), &mut found);
        found.sort();
        found
    }

    pub async fn until_drained(&self) {
        self.until_left(0).await;
    }

    /// Waits until so many files are left.
    pub async fn until_left(&self, left: usize) {
        eventually(SOON, &format!("{left} files are left"), || async {
            let files = self.files();
            if files.len() == left { Ok(()) } else { Err(files) }
        })
        .await;
    }

    /// Every line of the ledger; the chain must hold.
    pub fn lines(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        let chain = files::read::<std::io::Error>(&self.ledger(), |path, number, line| {
            entries.push(line.unwrap_or_else(|fault| panic!("{}:{number}: {fault}", path.display())));
            Ok(())
        });
        assert!(!chain.unwrap().starts_late);
        entries
    }

    pub fn lines_of(&self, event: Event) -> Vec<Entry> {
        self.lines().into_iter().filter(|entry| entry.event == event).collect()
    }

    /// Appends bytes to the ledger's newest file.
    pub fn scribble(&self, bytes: &[u8]) {
        let path = files::list(&self.ledger()).unwrap().pop().unwrap();
        fs::OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
    }
}

fn owned(settings: &[(&str, &str)]) -> BTreeMap<String, String> {
    settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

/// A running daemon.
pub struct Daemon {
    pub process: Proc,
    pub http: String,
}

impl Daemon {
    async fn get(&self, path: &str) -> (u16, String) {
        // Sets up TLS, which the client wants to have even where it uses none.
        Process::for_tests();
        match reqwest::get(format!("{}{path}", self.http)).await {
            Ok(answer) => (answer.status().as_u16(), answer.text().await.unwrap_or_default()),
            Err(_) => (0, String::new()),
        }
    }

    pub async fn status(&self) -> Status {
        serde_json::from_str(&self.get("/status").await.1).unwrap()
    }

    /// Status code and body.
    pub async fn ready(&self) -> (u16, serde_json::Value) {
        let (code, body) = self.get("/readyz").await;
        (code, serde_json::from_str(&body).unwrap_or_default())
    }

    /// One series of /metrics.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let page = self.get("/metrics").await.1;
        let line = page.lines().find(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        })?;
        line.rsplit(' ').next()?.parse().ok()
    }

    pub fn rss_mib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.pid())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
    }

    /// Asks it to end and waits for it.
    pub async fn stop(mut self) {
        assert_eq!(self.process.sigterm(SOON).await, 0, "{}", self.process.full_log());
    }
}

/// A server and a client of it.
pub struct Hub {
    pub server: NatsServer,
    pub nats: Nats,
}

impl Hub {
    pub async fn start() -> Self {
        Self::with(NatsOptions::default()).await
    }

    pub async fn with(options: NatsOptions) -> Self {
        let server = NatsServer::start(options).await;
        let nats = client(&server.url()).await;
        Self { server, nats }
    }

    pub fn url(&self) -> String {
        self.server.url()
    }

    pub fn stream(&self) -> Stream<'_> {
        Stream { js: self.nats.jetstream(), name: "edge_evidence" }
    }
}

/// What the hub of a site makes: a site makes nothing there.
pub async fn evidence_at(hub: &str) {
    let config = EvidenceConfig { max_bytes: 256 << 20, blobs_max_bytes: 2 << 30, ..EvidenceConfig::default() };
    ensure_evidence(client(hub).await.jetstream(), &config, false, Maker::Make).await.unwrap();
}

/// A large file, from the chunks that its manifest names.
pub async fn content_of(js: &jetstream::Context, manifest: &Message) -> Vec<u8> {
    let read: Manifest = serde_json::from_slice(&manifest.payload).unwrap();
    let site = subjects::evidence_site(&manifest.subject).unwrap();
    let chunks = subjects::evidence_chunks(site, &read.sha256, read.run.as_deref());
    let subject = subjects::bucket_chunks(&read.bucket, &chunks);
    let messages = Stream { js, name: "OBJ_edge_evidence_blobs" }.messages().await;
    let parts: Vec<_> = messages.into_iter().filter(|m| *m.subject == *subject).map(|m| m.payload).collect();
    assert_eq!(parts.len() as u64, read.chunks);
    parts.concat()
}

pub async fn client(url: &str) -> Nats {
    let nats = Nats::connect(&NatsConfig::for_url(url).unwrap(), "test").await.unwrap();
    assert!(nats.wait_connected(SOON).await);
    nats
}

/// A stream on a server.
pub struct Stream<'a> {
    pub js: &'a jetstream::Context,
    pub name: &'a str,
}

impl Stream<'_> {
    /// Messages in it; none when there is no such stream.
    pub async fn count(&self) -> u64 {
        match self.js.get_stream(self.name).await {
            Ok(mut stream) => stream.info().await.unwrap().state.messages,
            Err(_) => 0,
        }
    }

    /// Waits until it has so many messages.
    pub async fn until(&self, count: u64) {
        eventually(SOON, &format!("{count} messages are in {}", self.name), || async {
            let found = self.count().await;
            if found == count { Ok(()) } else { Err(found) }
        })
        .await;
    }

    /// Waits until it has at least so many messages.
    pub async fn until_some(&self, count: u64) {
        eventually(SOON, &format!("{count} messages or more are in {}", self.name), || async {
            self.count().await >= count
        })
        .await;
    }

    /// Every message, by its sequence.
    pub async fn messages(&self) -> Vec<Message> {
        let stream = self.js.get_stream(self.name).await.unwrap();
        let state = stream.cached_info().state.clone();
        let mut found = Vec::new();
        for seq in state.first_sequence..=state.last_sequence {
            if let Ok(message) = stream.direct_get(seq).await {
                found.push(Message {
                    subject: message.subject.clone(),
                    reply: None,
                    length: message.payload.len(),
                    payload: message.payload.clone(),
                    headers: Some(message.headers.clone()),
                    status: None,
                    description: None,
                });
            }
        }
        found
    }
}

pub fn header(message: &Message, name: &str) -> String {
    message.headers.as_ref().and_then(|h| h.get(name)).map(|v| v.as_str().to_owned()).unwrap_or_default()
}

pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(ring::digest::digest(&ring::digest::SHA256, bytes))
}
