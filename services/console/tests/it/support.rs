//! A console as a process, and a browser that keeps cookies.

use agentforge_console::{
    accounts::{self, Users},
    store::Database,
};
use agentforge_harness::{Proc, cargo_bin, eventually};
use serde_json::Value;
use std::{collections::BTreeMap, num::NonZeroU32, path::Path, time::Duration};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// For anything that must come, however busy the machine is.
pub const SOON: Duration = Duration::from_secs(60);
/// Nothing listens there.
pub const NOWHERE: &str = "nats://127.0.0.1:9";

/// A console process; it ends when this is dropped.
pub struct Running {
    pub proc: Proc,
    pub http: String,
    pub metrics: String,
    dir: Option<TempDir>,
}

impl Running {
    /// With its data in a directory of its own, and these settings on top.
    pub async fn start(envs: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut this = Self::start_in(dir.path(), envs).await;
        this.dir = Some(dir);
        this
    }

    /// With its data there.
    pub async fn start_in(data: &Path, envs: &[(&str, &str)]) -> Self {
        let fixed = [
            ("ENV", "dev"),
            ("HTTP_PORT", "0"),
            ("METRICS_PORT", "0"),
            ("NATS_URL", NOWHERE),
            ("DATA_DIR", data.to_str().unwrap()),
        ];
        let builder = Proc::builder(cargo_bin("agentforge-console")).envs(fixed).envs(envs.iter().copied());
        let mut proc = builder.start();
        let ready = proc.ready(SOON).await;
        let of = |what: &str| ready["console"][what].as_str().unwrap().to_owned();
        let this = Self { http: of("http"), metrics: of("metrics"), proc, dir: None };
        let browser = this.browser();
        eventually(SOON, "the console is ready", async || browser.get("/readyz").await.status == 200).await;
        this
    }

    /// Its data.
    pub fn data(&self) -> &Path {
        self.dir.as_ref().unwrap().path()
    }

    /// A browser without cookies.
    pub fn browser(&self) -> Browser {
        Browser { address: self.http.trim_start_matches("http://").to_owned(), cookies: BTreeMap::new(), csrf: None }
    }

    /// The value of a series.
    pub async fn metric(&self, series: &str) -> f64 {
        let (_, page) = agentforge_harness::http_get(&self.metrics, &[]).await.unwrap();
        let page = String::from_utf8(page).unwrap();
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }
}

/// Cookies, and the value against forged requests.
#[derive(Clone)]
pub struct Browser {
    pub address: String,
    pub cookies: BTreeMap<String, String>,
    pub csrf: Option<String>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// All values of a header.
    pub fn headers(&self, name: &str) -> Vec<String> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim().to_owned()).collect()
    }

    pub fn header(&self, name: &str) -> String {
        self.headers(name).into_iter().next().unwrap_or_default()
    }
}

impl Browser {
    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], None).await
    }

    /// Keeps the cookies of the answer.
    pub async fn post(&mut self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, &[], Some(body)).await
    }

    /// The same with any method and more headers.
    pub async fn call(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Answer {
        let answer = self.send(method, path, headers, body).await;
        for cookie in answer.headers("set-cookie") {
            let (name, rest) = cookie.split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            if value.is_empty() {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        answer
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Answer {
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        if !body.is_empty() && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            text += "Content-Type: application/json\r\n";
        }
        if !self.cookies.is_empty() {
            let pairs: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            text += &format!("Cookie: {}\r\n", pairs.join("; "));
        }
        if let Some(csrf) = self.csrf.as_ref().filter(|_| !headers.iter().any(|(name, _)| *name == "x-af-csrf")) {
            text += &format!("x-af-csrf: {csrf}\r\n");
        }
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }
}

/// Adds a user as `agentforge user add` does.
pub async fn add_user(url: &str, data: &Path, name: &str, role: &str, password: &str) {
    let database = Database::open(url, data, NonZeroU32::MIN).unwrap();
    let role = accounts::role(role).unwrap();
    let hash = accounts::hash_now(password).unwrap();
    Users(database.clone()).add(name, role, Some(&hash)).await.unwrap();
    database.close().await;
}
