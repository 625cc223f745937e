//! What a client is written, regardless of how much its socket takes at once.

use super::*;
use crate::sanitise::sanitise;
use std::time::Duration;

fn signer() -> Signer {
    Signer::new(["s"], Duration::from_secs(300))
}

fn event(seq: u64, marker: u64) -> Arc<Event> {
    let subject = format!("tactical.markers.a.m{marker}");
    let body = format!(r#"{{"title":"t{seq}","coordinates":[{marker},1]}}"#);
    let change = sanitise(&subject, body.as_bytes(), jiff::Timestamp::UNIX_EPOCH).unwrap();
    let id = EventId::bare(&epoch(), seq);
    Arc::new(Event::of_change(change, crate::event::Before::Nothing, &id, 0, &signer()))
}

fn epoch() -> Epoch {
    Epoch::of(1_000)
}

fn ring(events: impl IntoIterator<Item = Arc<Event>>) -> Ring {
    let mut ring = Ring::new(1 << 20);
    ring.begin(crate::event::Mark::bare(0));
    for event in events {
        ring.push(event);
    }
    ring
}

/// Writes in steps until nothing is left; gives all that was written.
fn drain(queue: &mut Queue, ring: &Ring, step: usize, tally: &mut WriteStats) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let mut parts = [IoSlice::new(&[]); FRAMES_AT_ONCE];
        let (count, bytes) = queue.gather(ring, &mut parts);
        if count == 0 {
            queue.consume(0, ring, tally);
            return out;
        }
        let all: Vec<u8> = parts[..count].iter().flat_map(|p| p.to_vec()).collect();
        assert_eq!(all.len(), bytes);
        let n = step.min(bytes);
        out.extend(&all[..n]);
        queue.consume(n, ring, tally);
    }
}

#[test]
fn frames_arrive_whole_and_in_order_in_steps_of_any_size() {
    let ring = ring((1..=100).map(|seq| event(seq, seq % 7)));
    let expected: Vec<u8> = [&b"hello"[..], event(0, 0).frame(Channel::Sse, None, Sight::Evidence).unwrap()]
        .into_iter()
        .map(<[u8]>::to_vec)
        .chain(
            (1..=100)
                .map(|seq| ring.get(seq - 1).unwrap().frame(Channel::Sse, None, Sight::Evidence).unwrap().to_vec()),
        )
        .flatten()
        .collect();
    for step in [1, 7, 150, 1000, 1 << 20] {
        let mut queue = Queue::new(Channel::Sse, Bytes::from_static(b"hello"), Phase::Live);
        queue.give([event(0, 0)]);
        // Sequence 0 would be taken for one that is old.
        queue.skip_to = 0;
        let mut tally = WriteStats::default();
        let written = drain(&mut queue, &ring, step, &mut tally);
        let without_first: Vec<u8> = expected.clone();
        let is_first_skipped = tally.events[0] == 100;
        assert!(is_first_skipped, "{:?}", tally.events);
        let first_len = event(0, 0).frame(Channel::Sse, None, Sight::Evidence).unwrap().len();
        assert_eq!(written, [&without_first[..5], &without_first[5 + first_len..]].concat());
        assert!(queue.is_up_to_date(&ring));
        assert_eq!(queue.written, 100);
    }
}

#[test]
fn what_a_filter_leaves_out_is_passed_by() {
    let ring = ring((1..=10).map(|seq| event(seq, seq)));
    let mut queue = Queue::new(Channel::Ws, Bytes::new(), Phase::Live);
    queue.filter = Some(Box::new(Filter::parse([("bbox", "3,0,4,2")]).unwrap()));
    let mut tally = WriteStats::default();
    drain(&mut queue, &ring, 50, &mut tally);
    assert_eq!((tally.events, queue.written), ([0, 2], 10));
    queue.filter = Some(Box::new(Filter::parse([("site", "elsewhere")]).unwrap()));
    queue.next = 0;
    drain(&mut queue, &ring, 50, &mut tally);
    assert!(queue.is_up_to_date(&ring));
    assert_eq!(tally.events, [0, 2]);
}

#[test]
fn a_slow_client_keeps_the_newest_of_each_marker_and_is_told() {
    let ring = ring((1..=100).map(|seq| event(seq, seq % 3)));
    let mut queue = Queue::new(Channel::Sse, Bytes::new(), Phase::Live);
    let mut tally = WriteStats::default();
    queue.consume(0, &ring, &mut tally);
    // The first frame is half out.
    let first = ring.get(0).unwrap().frame(Channel::Sse, None, Sight::Evidence).unwrap().clone();
    queue.consume(first.len() / 2, &ring, &mut tally);
    let before = queue.pending_bytes(&ring);
    let after = queue.conflate(&ring, &epoch(), &mut tally, 0);
    assert!(after < before / 10, "{before} {after}");
    assert_eq!(tally.conflated, 96);
    let text = String::from_utf8(drain(&mut queue, &ring, 64, &mut tally)).unwrap();
    assert!(text.starts_with(std::str::from_utf8(&first[first.len() / 2..]).unwrap()));
    let rest = &text[first.len() - first.len() / 2..];
    assert!(
        rest.starts_with(
            "event: gap\ndata: {\"reason\":\"conflated\",\"from\":\"1-2\",\"to\":\"1-100\",\"missing\":96}"
        ),
        "{rest}"
    );
    let ids: Vec<&str> = rest.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    assert_eq!(ids, ["1-98", "1-99", "1-100"]);
    assert!(queue.is_up_to_date(&ring));
}
