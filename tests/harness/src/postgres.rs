//! PostgreSQL for tests: one server per test process, a fresh database per test.
//!
//! Uses the programs of the system's packages. As root they run as an unprivileged user, since
//! PostgreSQL refuses root. The shared server ends with the test process by its death signal, and
//! folders that dead processes left behind are removed at the next start.

use crate::{
    child::{self, ChildHandle, Spec},
    free_port,
};
use std::{
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::OnceCell,
    time::{Instant, sleep, timeout},
};

const START: Duration = Duration::from_secs(60);
const PREFIX: &str = "agentforge-pg-";

/// What differs from a plain server.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// `fsync`, on unless a test has no use for it.
    pub fsync: bool,
    /// Further settings, as `("max_connections", "20")`.
    pub settings: Vec<(String, String)>,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self { fsync: true, settings: Vec::new() }
    }
}

/// A PostgreSQL server on a free port of 127.0.0.1, user `postgres`, no password.
pub struct Postgres {
    child: Option<ChildHandle>,
    dir: PathBuf,
    port: u16,
    owner: Option<(u32, u32)>,
    options: PostgresOptions,
}

impl Postgres {
    /// The server that all tests of this process share.
    ///
    /// # Panics
    /// When there is none to start (ask [`crate::require`] first) or it does not come up.
    pub async fn start() -> &'static Self {
        static SHARED: OnceCell<Postgres> = OnceCell::const_new();
        SHARED.get_or_init(|| Self::own(PostgresOptions::default())).await
    }

    /// A server of the test's own, for tests that kill it.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub async fn own(options: PostgresOptions) -> Self {
        let bin = binaries().unwrap_or_else(|e| panic!("{e}"));
        let owner = unprivileged();
        let dir = new_dir(owner);
        let mut init = Spec::new(bin.join("initdb"), dir.join("initdb.log"));
        init.run_as = owner;
        let data = dir.join("data");
        let init = init.args([
            "-D",
            &*data.to_string_lossy(),
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-locale",
            "--no-sync",
        ]);
        let mut init = init.start().unwrap_or_else(|e| panic!("start initdb: {e}"));
        let done = init.wait(START).await;
        assert!(done.is_some_and(|s| s.success()), "initdb failed ({done:?}):\n{}", init.log());
        let mut server = Self { child: None, dir, port: 0, owner, options };
        server.launch().await;
        server
    }

    /// A hot standby of `primary`: takes connections, streams what the primary commits, refuses writes.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub async fn standby_of(primary: &Self) -> Self {
        let bin = binaries().unwrap_or_else(|e| panic!("{e}"));
        let owner = unprivileged();
        let dir = new_dir(owner);
        let mut copy = Spec::new(bin.join("pg_basebackup"), dir.join("basebackup.log"));
        copy.run_as = owner;
        let data = dir.join("data");
        let port = primary.port.to_string();
        let args = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-R", "-X", "stream", "-c", "fast", "-D"];
        let mut copy = copy.args(args.into_iter().chain([&*data.to_string_lossy()])).start().expect("pg_basebackup");
        let done = copy.wait(START).await;
        assert!(done.is_some_and(|s| s.success()), "pg_basebackup failed ({done:?}):\n{}", copy.log());
        let mut server = Self { child: None, dir, port: 0, owner, options: primary.options.clone() };
        server.launch().await;
        server
    }

    /// Creates a database and returns its `postgres://` URL. A number is added to the name, so that tests that run in
    /// parallel may ask for the same one.
    ///
    /// # Panics
    /// When the database cannot be created.
    pub async fn database(&self, name: &str) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
            .take(40)
            .collect();
        let name = format!("{name}_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}")).await;
        self.url(&name)
    }

    /// The URL of a database over TCP.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }
    /// `127.0.0.1:<port>`, as a proxy's backend.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
    /// The process id; `None` while the server is down.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(ChildHandle::pid)
    }
    /// The folder of the unix socket.
    pub fn socket_dir(&self) -> &Path {
        &self.dir
    }

    /// Runs statements with `psql` and gives what it prints, unaligned.
    ///
    /// # Panics
    /// When a statement fails.
    pub async fn sql(&self, database: &str, statements: &str) -> String {
        let bin = binaries().unwrap_or_else(|e| panic!("{e}"));
        let mut command = tokio::process::Command::new(bin.join("psql"));
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres"]);
        command.args(["-p", &self.port.to_string(), "-d", database, "-c", statements]).kill_on_drop(true);
        let out = timeout(START, command.output()).await.expect("psql answers in time").expect("psql can be started");
        assert!(out.status.success(), "{statements}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    /// SIGKILL: a crash. The data stay.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill9();
        }
    }

    /// Starts the server again on the same port and data; kills it first if it still runs.
    pub async fn restart(&mut self) {
        self.kill9();
        self.launch().await;
    }

    async fn launch(&mut self) {
        let end = Instant::now() + START;
        loop {
            let port = if self.port == 0 { free_port() } else { self.port };
            let mut child = self.spawn(port);
            while child.try_status().is_none() && Instant::now() < end {
                if answers(port).await {
                    (self.port, self.child) = (port, Some(child));
                    return;
                }
                sleep(Duration::from_millis(20)).await;
            }
            // The port was taken meanwhile, or children of a killed server are not all gone yet.
            assert!(Instant::now() < end, "postgres did not start:\n{}", child.log());
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn spawn(&self, port: u16) -> ChildHandle {
        let bin = binaries().unwrap_or_else(|e| panic!("{e}"));
        let mut spec = Spec::new(bin.join("postgres"), self.dir.join("postgres.log"));
        spec.run_as = self.owner;
        // An immediate shutdown, which removes the shared memory that SIGKILL would leave behind.
        spec.death_signal = "QUIT";
        spec = spec.args(["-D", &*self.dir.join("data").to_string_lossy(), "-p", &port.to_string()]);
        let fsync = if self.options.fsync { "on" } else { "off" };
        let socket = self.dir.to_string_lossy().into_owned();
        let fixed = [
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", &socket),
            ("fsync", fsync),
            ("max_connections", "200"),
        ];
        let fixed = fixed.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned()));
        spec = spec
            .args(fixed.chain(self.options.settings.clone()).flat_map(|(k, v)| ["-c".to_owned(), format!("{k}={v}")]));
        spec.start().unwrap_or_else(|e| panic!("start postgres: {e}"))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        child::print_if_failing("postgres", &self.dir.join("postgres.log"));
        self.kill9();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Whether the server takes connections: the answer to a start-up message is `R` (authentication),
/// while a server that still recovers answers `E`.
async fn answers(port: u16) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let body = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
        let length = u32::try_from(body.len() + 4).expect("a short message");
        stream.write_all(&length.to_be_bytes()).await?;
        stream.write_all(body).await?;
        stream.read_u8().await
    };
    matches!(timeout(Duration::from_secs(5), ask).await, Ok(Ok(b'R')))
}

/// The folder with `postgres`, `initdb` and `psql`: the newest of the system's packages.
pub(crate) fn binaries() -> Result<&'static PathBuf, String> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let look = || {
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let mut found: Vec<(u32, PathBuf)> = versions
            .filter_map(|e| Some((e.file_name().to_str()?.parse().ok()?, e.path().join("bin"))))
            .filter(|(_, bin)| bin.join("postgres").is_file() && bin.join("initdb").is_file())
            .collect();
        found.sort();
        found.pop().map(|(_, bin)| bin)
    };
    let missing = "no PostgreSQL in /usr/lib/postgresql: install the package postgresql";
    FOUND.get_or_init(look).as_ref().ok_or_else(|| missing.to_owned())
}

/// User and group to run as when this process is root: `postgres` of the package, else `nobody`.
fn unprivileged() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let id = |flag: &str, user: &str| -> Option<u32> {
        let out = Command::new("id").args([flag, user]).output().ok().filter(|o| o.status.success())?;
        String::from_utf8_lossy(&out.stdout).trim().parse().ok()
    };
    let known = ["postgres", "nobody"].into_iter().find_map(|user| Some((id("-u", user)?, id("-g", user)?)));
    Some(known.expect("a user postgres or nobody exists"))
}

/// A folder named after this process; those of processes that are gone are removed.
fn new_dir(owner: Option<(u32, u32)>) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let base = std::env::temp_dir();
    for entry in std::fs::read_dir(&base).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    let dir = base.join(format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    std::fs::create_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).expect("our own folder");
    if let Some((uid, gid)) = owner {
        chown(&dir, Some(uid), Some(gid)).expect("root may give a folder away");
    }
    dir
}
