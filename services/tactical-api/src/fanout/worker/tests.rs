//! Workers without threads: commands in, what a client reads out.

use super::*;
use crate::{event::Sight, filter::Filter, links::Signer, slots::Slots, source::Source};
use agentforge_runtime::http::Socket;
use bytes::Bytes;
use std::{
    io::Read,
    net::{IpAddr, Ipv4Addr, TcpListener, TcpStream},
};

/// Longer than a write on one machine takes.
const READ_MAX: Duration = Duration::from_secs(20);

fn worker(wanted: mpsc::Sender<ReplayRequest>) -> Worker {
    let poll = Poll::new().unwrap();
    let inbox = Arc::new(Inbox::new(mio::Waker::new(poll.registry(), WAKER).unwrap()));
    let settings = Settings {
        heartbeats: [Duration::from_secs(15); 2],
        client_buffer_bytes: 512 << 10,
        signer: Signer::new(["secret"], Duration::from_secs(60)),
        source: Source::new(),
    };
    Worker::new(0, poll, inbox, settings, wanted)
}

/// A client that wants what was stored since a moment, so it needs the stream; its end of the connection.
fn client(worker: &mut Worker, slots: &Slots) -> TcpStream {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    far.set_read_timeout(Some(READ_MAX)).unwrap();
    let (near, peer) = listener.accept().unwrap();
    near.set_nonblocking(true).unwrap();
    let slot = slots.take(peer.ip(), Channel::Sse).unwrap();
    let role = Role::Client {
        slot,
        filter: Filter::default(),
        sight: Sight::Evidence,
        start: Start::Since(0),
        notice: None,
        unread: Bytes::new(),
    };
    let join = Join { socket: Socket::Plain(near), channel: Channel::Sse, greeting: Bytes::new(), role };
    worker.join(join, Instant::now());
    far
}

fn has_slot(slots: &Slots) -> bool {
    slots.take(IpAddr::V4(Ipv4Addr::LOCALHOST), Channel::Sse).is_ok()
}

#[test]
fn a_client_that_finds_the_queue_of_replays_full_is_asked_to_connect_again() {
    let (wanted, mut requests) = mpsc::channel(1);
    let (mut worker, slots) = (worker(wanted), Slots::new(2, 0));
    let _first = client(&mut worker, &slots);
    assert!(has_slot(&slots), "one of two");
    let mut second = client(&mut worker, &slots);
    assert!(has_slot(&slots), "the second client's slot is free again");
    // The worker has ended its side of the connection, so there is an end to read to.
    let mut words = String::new();
    second.read_to_string(&mut words).unwrap();
    assert!(words.contains("event: reconnect") && words.contains("too many clients wait"), "{words}");

    // The first client waits for its answer, and is live after it.
    let request = requests.try_recv().unwrap();
    assert!(requests.try_recv().is_err(), "the second client's request is not in the queue");
    assert_eq!(request.from, ReplayStart::Since(0));
    let ClientRef { key, generation, .. } = request.client;
    let is_waiting = |worker: &Worker| {
        let phase = &worker.clients[key].queue.phase;
        matches!(phase, Phase::CatchingUp { is_waiting: true, .. })
    };
    assert!(is_waiting(&worker));
    let found = ReplayBatch { events: Vec::new(), after: 3, is_at_end: true };
    worker.feed(key, generation, Some(found), Instant::now());
    assert!(worker.clients[key].queue.is_live());

    // The queue is closed only when the service stops.
    requests.close();
    let mut third = client(&mut worker, &slots);
    drop(requests);
    third.set_nonblocking(true).unwrap();
    let kind = third.read(&mut [0; 64]).unwrap_err().kind();
    assert_eq!(kind, io::ErrorKind::WouldBlock, "the stop has its own words");
}
