//! A proxy between a client and a NATS server that withholds what the client publishes on chosen subjects.
//!
//! It reads the client's protocol, so one kind of request stays without an answer while everything else on the same
//! connection passes, in order. For plain connections: it cannot read TLS.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};
use tokio_util::task::AbortOnDropHandle;

#[derive(Default)]
struct State {
    /// What the subjects that are withheld begin with.
    prefixes: Mutex<Vec<String>>,
    withheld: AtomicUsize,
}

impl State {
    fn withholds(&self, subject: &str) -> bool {
        let prefixes = self.prefixes.lock().unwrap_or_else(PoisonError::into_inner);
        prefixes.iter().any(|prefix| subject.starts_with(prefix.as_str()))
    }
}

/// Stands before one NATS server (`host:port`). Dropping it ends the accepting of connections.
pub struct NatsProxy {
    address: SocketAddr,
    state: Arc<State>,
    _accept: AbortOnDropHandle<()>,
}

impl NatsProxy {
    /// Listens on a free port of 127.0.0.1 and lets everything pass.
    pub async fn start(backend: impl Into<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let state = Arc::new(State::default());
        let accept = tokio::spawn(accept(listener, backend.into(), state.clone()));
        Self { address, state, _accept: AbortOnDropHandle::new(accept) }
    }

    /// `nats://…` of where clients connect.
    pub fn nats_url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// From now on messages whose subject begins with `prefix` never reach the server: a request stays unanswered.
    pub fn withhold(&self, prefix: &str) {
        self.state.prefixes.lock().unwrap_or_else(PoisonError::into_inner).push(prefix.to_owned());
    }

    /// How many messages were withheld so far.
    pub fn withheld(&self) -> usize {
        self.state.withheld.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, backend: String, state: Arc<State>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let (backend, state) = (backend.clone(), state.clone());
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(&backend).await else { return };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let (from_client, mut to_client) = client.into_split();
            let (mut from_server, to_server) = server.into_split();
            // One direction's end closes both.
            tokio::select! {
                _ = filter(BufReader::new(from_client), to_server, &state) => (),
                _ = copy(&mut from_server, &mut to_client) => (),
            }
        });
    }
}

/// Passes the client's operations on, one by one, until either side ends.
async fn filter(mut from: BufReader<OwnedReadHalf>, mut to: OwnedWriteHalf, state: &State) -> std::io::Result<()> {
    let mut operation = Vec::new();
    loop {
        operation.clear();
        if from.read_until(b'\n', &mut operation).await? == 0 {
            return Ok(());
        }
        let published = publish(&operation);
        if let Some((_, size)) = &published {
            let line = operation.len();
            // The payload ends with a line break of its own.
            operation.resize(line + size + 2, 0);
            from.read_exact(&mut operation[line..]).await?;
        }
        if published.is_some_and(|(subject, _)| state.withholds(&subject)) {
            state.withheld.fetch_add(1, Ordering::SeqCst);
        } else {
            to.write_all(&operation).await?;
        }
    }
}

/// Subject and payload's size of `PUB <subject> [reply] <size>` and `HPUB <subject> [reply] <headers> <size>`.
fn publish(line: &[u8]) -> Option<(String, usize)> {
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let verb = words.next()?;
    if !verb.eq_ignore_ascii_case("PUB") && !verb.eq_ignore_ascii_case("HPUB") {
        return None;
    }
    let subject = words.next()?.to_owned();
    Some((subject, words.next_back()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    #[tokio::test]
    async fn only_the_chosen_subjects_are_withheld_and_the_rest_stays_in_order() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = NatsProxy::start(listener.local_addr().unwrap().to_string()).await;
        proxy.withhold("held.");
        let mut client = TcpStream::connect(proxy.nats_url().trim_start_matches("nats://")).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let passed =
            ["CONNECT {}\r\n", "PUB open.a 11\r\nPUB held.b \r\n", "HPUB open.c inbox 2 4\r\n\r\n\r\n\r\n", "PING\r\n"];
        let held = ["PUB held.a inbox 3\r\n\r\nx\r\n", "HPUB held.b 2 2\r\nab\r\n"];
        let sent = [passed[0], held[0], passed[1], passed[2], held[1], passed[3]].concat();
        client.write_all(sent.as_bytes()).await.unwrap();
        let wanted = passed.concat();
        let mut arrived = vec![0; wanted.len()];
        timeout(Duration::from_secs(20), server.read_exact(&mut arrived)).await.expect("the rest passes").unwrap();
        assert_eq!(String::from_utf8(arrived).unwrap(), wanted);
        assert_eq!(proxy.withheld(), held.len());
        server.write_all(b"PONG\r\n").await.unwrap();
        let mut answer = [0; 6];
        timeout(Duration::from_secs(20), client.read_exact(&mut answer)).await.expect("answers pass").unwrap();
        assert_eq!(&answer, b"PONG\r\n");
    }
}
