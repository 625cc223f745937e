//! Reports that travel together: many jobs end at about the same time, and a message of its own for each would cost the
//! server, the worker and the orchestrator more than the report itself.
//!
//! The first job that has a report to send leads: it sends at once when nothing else is on its way, else it waits until
//! that has arrived, the message is full, or a millisecond has passed. The others give it theirs and wait for its word.
//! A message is sent once. Where the stream did not confirm it, each job sends its own report again by itself, with its
//! own id and its own patience: what the stream has twice is recognised by the orchestrator's fence.

use agentforge_jetstream::{HeaderMap, Nats, publish};
use agentforge_message_id::MsgId;
use agentforge_proto::bus::{Bundled, REPORTS, REPORTS_MAX};
use async_nats::Subject;
use bytes::Bytes;
use serde_json::value::RawValue;
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Notify, sync::watch, time::sleep};

/// How long the first report of a message waits for others while an earlier message is on its way.
const COMPANY: Duration = Duration::from_millis(1);
/// Bytes of reports in one message: what the orchestrator holds of messages at once stays small.
const BYTES_MAX: usize = 64 * 1024;
/// A larger report gains nothing from company.
pub(crate) const REPORT_BYTES_MAX: usize = 8 * 1024;

/// The reports of one queue on their way.
pub(crate) struct Bundler {
    subject: Subject,
    /// The message that is being filled.
    open: Mutex<Option<Arc<Filling>>>,
    on_their_way: AtomicUsize,
    arrived: Notify,
}

/// A message that is being filled, or on its way.
struct Filling {
    reports: Mutex<Reports>,
    is_full: Notify,
    /// Whether the stream has it, once that is known.
    stored: watch::Sender<Option<bool>>,
}

#[derive(Default)]
struct Reports {
    reports: Vec<Bundled<Box<RawValue>>>,
    bytes: usize,
}

impl Bundler {
    pub(crate) fn new(results_subject: &str) -> Self {
        Self {
            subject: results_subject.into(),
            open: Mutex::default(),
            on_their_way: AtomicUsize::default(),
            arrived: Notify::default(),
        }
    }

    /// Sends a report, perhaps with others; whether the stream has it. `false`: it may have it or not.
    pub(crate) async fn store(&self, nats: &Nats, report: Bundled<Box<RawValue>>) -> bool {
        let (filling, leads) = self.add(report);
        if !leads {
            let mut stored = filling.stored.subscribe();
            return stored.wait_for(Option::is_some).await.is_ok_and(|stored| *stored == Some(true));
        }
        // However this task ends, those who wait hear of it.
        let told = Told(&filling, false);
        self.wait_for_company(&filling).await;
        let under_way = UnderWay::begin(self);
        let sent = self.close(&filling);
        let is_stored = publish_all(nats, self.subject.clone(), sent).await;
        drop(under_way);
        told.tell(is_stored);
        is_stored
    }

    fn open(&self) -> MutexGuard<'_, Option<Arc<Filling>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a report into the message that is being filled, or into a new one, which its sender leads.
    fn add(&self, report: Bundled<Box<RawValue>>) -> (Arc<Filling>, bool) {
        let mut open = self.open();
        let bytes = report.report.get().len();
        if let Some(filling) = &*open {
            let mut reports = filling.reports();
            if reports.bytes + bytes <= BYTES_MAX {
                reports.bytes += bytes;
                reports.reports.push(report);
                let is_full = reports.reports.len() == REPORTS_MAX;
                drop(reports);
                let filling = Arc::clone(filling);
                if is_full {
                    filling.is_full.notify_one();
                    *open = None;
                }
                return (filling, false);
            }
            filling.is_full.notify_one();
        }
        let first = Reports { reports: vec![report], bytes };
        let filling =
            Arc::new(Filling { reports: Mutex::new(first), is_full: Notify::new(), stored: watch::Sender::new(None) });
        *open = Some(Arc::clone(&filling));
        (filling, true)
    }

    async fn wait_for_company(&self, filling: &Filling) {
        // Jobs that came in one turn end in one turn.
        tokio::task::yield_now().await;
        if self.on_their_way.load(Ordering::Relaxed) == 0 {
            return;
        }
        tokio::select! {
            () = filling.is_full.notified() => {}
            () = self.arrived.notified() => {}
            () = sleep(COMPANY) => {}
        }
    }

    /// Nothing more is added to it.
    fn close(&self, filling: &Arc<Filling>) -> Vec<Bundled<Box<RawValue>>> {
        let mut open = self.open();
        if open.as_ref().is_some_and(|open| Arc::ptr_eq(open, filling)) {
            *open = None;
        }
        std::mem::take(&mut filling.reports().reports)
    }
}

impl Filling {
    fn reports(&self) -> MutexGuard<'_, Reports> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says to those who wait what became of a message, at the latest when it is dropped.
struct Told<'a>(&'a Filling, bool);

impl Told<'_> {
    fn tell(mut self, is_stored: bool) {
        self.1 = is_stored;
    }
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.0.stored.send_replace(Some(self.1));
    }
}

struct UnderWay<'a>(&'a Bundler);

impl<'a> UnderWay<'a> {
    fn begin(bundler: &'a Bundler) -> Self {
        bundler.on_their_way.fetch_add(1, Ordering::Relaxed);
        Self(bundler)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.on_their_way.fetch_sub(1, Ordering::Relaxed);
        self.0.arrived.notify_one();
    }
}

async fn publish_all(nats: &Nats, subject: Subject, reports: Vec<Bundled<Box<RawValue>>>) -> bool {
    let mut headers = HeaderMap::new();
    headers.insert(REPORTS, reports.len().to_string());
    let payload: Bytes = serde_json::to_vec(&reports).expect("JSON text and strings are JSON").into();
    let id = MsgId::reports(&format!("{:032x}", rand::random::<u128>()));
    publish(nats, subject, id, headers, payload).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(bytes: usize) -> Bundled<Box<RawValue>> {
        let text = format!("\"{}\"", "x".repeat(bytes - 2));
        Bundled { token: "t".into(), reusable: false, report: RawValue::from_string(text).unwrap() }
    }

    #[test]
    fn a_message_is_bounded_in_reports_and_bytes() {
        let bundler = Bundler::new("swarm.results.m.q");
        let leads: Vec<bool> = (0..REPORTS_MAX * 2).map(|_| bundler.add(report(10)).1).collect();
        assert_eq!(leads.iter().filter(|leads| **leads).count(), 2);
        assert!(leads[0] && leads[REPORTS_MAX], "the first of each leads");

        let (first, leads) = bundler.add(report(BYTES_MAX - 5));
        assert!(leads);
        let (second, leads) = bundler.add(report(6));
        assert!(leads && !Arc::ptr_eq(&first, &second));
        assert_eq!(bundler.close(&first).len(), 1);
        let (third, leads) = bundler.add(report(6));
        assert!(!leads && Arc::ptr_eq(&third, &second), "closing the first leaves the second open");
        assert_eq!(bundler.close(&second).len(), 2);
        assert!(bundler.add(report(6)).1, "what is closed takes nothing more");
    }

    #[tokio::test]
    async fn those_who_wait_hear_of_a_leader_that_is_gone() {
        let bundler = Bundler::new("swarm.results.m.q");
        let (filling, _) = bundler.add(report(10));
        let mut stored = filling.stored.subscribe();
        drop(Told(&filling, false));
        assert_eq!(*stored.wait_for(Option::is_some).await.unwrap(), Some(false));
    }
}
