//! The deliveries held here, so that JetStream is notified in time that they are being worked on.
//!
//! Only a list: the lifeline's thread reads it and sends. A delivery is on it from its arrival to its settlement, but
//! never longer than its work may take: a tool that blocks its thread for good loses its delivery to another worker
//! instead of keeping it forever.

use async_nats::Subject;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{sync::Notify, time::timeout};

/// What is assumed until the consumer was asked; the topology's default is three times as long.
const ACK_WAIT_ASSUMED: Duration = Duration::from_secs(10);
/// Below this the traffic would not be worth it.
const ACK_WAIT_MIN: Duration = Duration::from_millis(300);

/// The deliveries that are held. Shared by the loops, which add, and the lifeline, which sends.
#[derive(Debug)]
pub struct KeepAlive {
    held: Mutex<HashMap<u64, HeldDelivery>>,
    next: AtomicU64,
    ack_wait_ms: AtomicU64,
    changed: Notify,
}

#[derive(Debug)]
struct HeldDelivery {
    reply: Subject,
    until: Instant,
}

/// A delivery's place on the list; dropping it takes it off.
#[derive(Debug)]
pub struct KeepAliveHold {
    id: u64,
    list: Arc<KeepAlive>,
}

impl Default for KeepAlive {
    fn default() -> Self {
        let ack_wait_ms = AtomicU64::new(as_ms(ACK_WAIT_ASSUMED));
        Self { held: Mutex::default(), next: AtomicU64::new(0), ack_wait_ms, changed: Notify::new() }
    }
}

fn as_ms(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

impl KeepAlive {
    /// Puts a delivery on the list for at most `limit`; `reply` is where its acknowledgement goes.
    pub fn hold(self: &Arc<Self>, reply: Subject, limit: Duration) -> KeepAliveHold {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.held().insert(id, HeldDelivery { reply, until: Instant::now() + limit });
        KeepAliveHold { id, list: self.clone() }
    }

    /// Where to send keep-alives now; deliveries past their limit are left out.
    pub fn due(&self, now: Instant) -> Vec<Subject> {
        self.held().values().filter(|held| now < held.until).map(|held| held.reply.clone()).collect()
    }

    /// How often to send keep-alives: at a third of the shortest ack_wait.
    pub fn period(&self) -> Duration {
        Duration::from_millis(self.ack_wait_ms.load(Ordering::Relaxed)) / 3
    }

    /// Waits for a period; less when a consumer's ack_wait became known meanwhile.
    pub async fn wait(&self) {
        let _ = timeout(self.period(), self.changed.notified()).await;
    }

    /// Takes note of what a consumer's ack_wait is. Of several consumers the shortest counts.
    pub fn set_ack_wait(&self, ack_waits: impl IntoIterator<Item = Duration>) {
        if let Some(shortest) = ack_waits.into_iter().min() {
            self.ack_wait_ms.store(as_ms(shortest.max(ACK_WAIT_MIN)), Ordering::Relaxed);
            self.changed.notify_one();
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<u64, HeldDelivery>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeepAliveHold {
    /// From now on for at most `limit`.
    pub fn extend(&self, limit: Duration) {
        if let Some(held) = self.list.held().get_mut(&self.id) {
            held.until = Instant::now() + limit;
        }
    }
}

impl Drop for KeepAliveHold {
    fn drop(&mut self) {
        self.list.held().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_on_the_list_until_it_is_settled_or_its_time_is_over() {
        let list = Arc::new(KeepAlive::default());
        let now = Instant::now();
        let one = list.hold("a".into(), Duration::from_secs(10));
        let two = list.hold("b".into(), Duration::from_secs(100));
        assert_eq!(list.due(now).len(), 2);
        assert_eq!(list.due(now + Duration::from_secs(50)), ["b".into()]);
        one.extend(Duration::from_secs(1000));
        assert_eq!(list.due(now + Duration::from_secs(500)), ["a".into()]);
        drop((one, two));
        assert!(list.due(now).is_empty());
    }

    #[test]
    fn the_period_is_a_third_of_the_shortest_wait() {
        let list = KeepAlive::default();
        list.set_ack_wait([Duration::from_secs(30), Duration::from_secs(3)]);
        assert_eq!(list.period(), Duration::from_secs(1));
        list.set_ack_wait([Duration::from_millis(1)]);
        assert_eq!(list.period(), ACK_WAIT_MIN / 3);
    }
}
