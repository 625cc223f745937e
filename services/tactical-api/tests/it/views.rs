//! The promise of the streams, attacked at random: each client's view is the stream's log, or it got a gap.
//!
//! Clients of both kinds come and go, read slowly, and lose their server; the log rolls over because each marker keeps
//! only its last hundred states. In the end every client has, in order and once, every state that the log has or had,
//! except for those reported to it as gaps.

use crate::support::{Api, Bus, Frame, Got, SOON, Sse, Ws};
use agentforge_harness::{NatsOptions, NatsServer, require};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    sync::{Mutex, watch},
    time::{sleep, timeout},
};

/// What one client saw.
#[derive(Default)]
struct View {
    seen: BTreeMap<u64, String>,
    last_id: String,
    /// Both ends belong to it.
    gaps: Vec<(u64, u64)>,
}

impl View {
    fn take(&mut self, got: &Got) {
        if got.event == "gap" {
            let seq = |name: &str| got.data[name].as_str().unwrap().split_once('-').unwrap().1.parse::<u64>().unwrap();
            assert_ne!(got.data["reason"], "reset", "{got:?}");
            self.gaps.push((seq("from"), seq("to")));
            return;
        }
        let seq = got.seq();
        let newest = self.seen.last_key_value().map_or(0, |(seq, _)| *seq);
        assert!(seq > newest, "{seq} came after {newest}");
        self.seen.insert(seq, got.title().to_owned());
        self.last_id.clone_from(&got.id);
    }
}

enum Either {
    Sse(Box<Sse>),
    Ws(Box<Ws>),
}

impl Either {
    /// A client that knows where it is; `None` when the server is not there.
    async fn open(address: &str, is_ws: bool, view: &View) -> Option<Self> {
        let since = if view.last_id.is_empty() { "0" } else { &view.last_id };
        if is_ws {
            let url = format!("ws://{address}/events/ws?since={since}");
            let (socket, _) = timeout(SOON, tokio_tungstenite::connect_async(url)).await.ok()?.ok()?;
            return Some(Self::Ws(Box::new(Ws { socket, protocol: None })));
        }
        let stream = tokio::net::TcpStream::connect(address).await.ok()?;
        let header = format!("Last-Event-ID: {}", view.last_id);
        let headers: &[&str] = if view.last_id.is_empty() { &[] } else { &[&header] };
        let sse = Sse::try_over(stream, address, &format!("/events/stream?since={since}"), headers).await?;
        (sse.status == 200).then(|| Self::Sse(Box::new(sse)))
    }

    /// The next event that is of the log, or a gap.
    async fn next(&mut self) -> Option<Got> {
        loop {
            let got = match self {
                Self::Sse(sse) => sse.next().await?,
                Self::Ws(ws) => match ws.frame().await {
                    Frame::Event(got) => got,
                    Frame::Closed(..) | Frame::Cut => return None,
                },
            };
            if ["marker", "gap"].contains(&got.event.as_str()) {
                return Some(got);
            }
        }
    }
}

/// One client's life until it has the last sequence.
async fn live(address: watch::Receiver<String>, is_ws: bool, seed: u64, last: watch::Receiver<u64>) -> View {
    let (mut rng, mut view) = (StdRng::seed_from_u64(seed), View::default());
    loop {
        let now = address.borrow().clone();
        let Some(mut client) = Either::open(&now, is_ws, &view).await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let goes_after = rng.random_range(1..400);
        for _ in 0..goes_after {
            let Some(got) = client.next().await else { break };
            view.take(&got);
            if rng.random_ratio(1, 200) {
                sleep(Duration::from_millis(rng.random_range(1..200))).await;
            }
            let end = *last.borrow();
            let newest = view.seen.last_key_value().map_or(0, |(seq, _)| *seq);
            if end > 0 && newest >= end {
                return view;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_view_is_the_log_or_the_client_was_told() {
    let Some(()) = require("nats-server") else { return };
    let rounds = if std::env::var("AGENTFORGE_SOAK").is_ok_and(|v| v == "1") { 10 } else { 1 };
    for round in 0..rounds {
        attack(0xA6E27 + round).await;
    }
}

async fn attack(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut nats = NatsServer::start(NatsOptions::default()).await;
    let settings = [("TACTICAL_STREAM_MAX_CLIENTS", "100"), ("SHUTDOWN_GRACE", "2s")];
    let mut api = Api::start(&nats.url(), &settings).await;
    let (address, watched) = watch::channel(api.address().to_owned());
    let (end, ended) = watch::channel(0);
    let clients: Vec<_> =
        (0..12).map(|n| tokio::spawn(live(watched.clone(), n % 2 == 1, seed * 100 + n, ended.clone()))).collect();
    let log = Arc::new(Mutex::new(BTreeMap::new()));
    let bus = Bus::connect(&nats.url()).await;
    let mut last = 0;
    for n in 0..4000_u32 {
        // A few markers have most of the states, so that old ones go.
        let marker = if rng.random_ratio(3, 4) { rng.random_range(0..4) } else { rng.random_range(4..200) };
        let title = n.to_string();
        last = bus.marker(&format!("m{marker}"), &title).await;
        log.lock().await.insert(last, title);
        match n {
            900 | 2600 => {
                api.proc.kill9();
                api = Api::start(&nats.url(), &settings).await;
                address.send_replace(api.address().to_owned());
            }
            1700 => {
                let code = api.proc.sigterm(SOON).await;
                assert_eq!(code, 0);
                api = Api::start(&nats.url(), &settings).await;
                address.send_replace(api.address().to_owned());
            }
            3300 => {
                nats.stop_gracefully().await;
                nats.restart().await;
            }
            _ => {}
        }
    }
    end.send_replace(last);
    // One more, for those that had already received the last one.
    let title = "the end".to_owned();
    let beyond = bus.marker("m0", &title).await;
    let log = {
        let mut log = log.lock().await;
        log.insert(beyond, title);
        log.clone()
    };
    for (n, client) in clients.into_iter().enumerate() {
        let view = timeout(SOON * 2, client).await.unwrap_or_else(|_| panic!("client {n} never had it all")).unwrap();
        for (seq, title) in log.range(..=last) {
            match view.seen.get(seq) {
                Some(seen) => assert_eq!(seen, title, "client {n}, {seq}"),
                None => assert!(
                    view.gaps.iter().any(|(from, to)| from <= seq && seq <= to),
                    "client {n} was not told of {seq}; gaps: {:?}",
                    view.gaps
                ),
            }
        }
    }
}
