//! What is done for clients by the clock: heartbeats for the idle, a word when the source goes, ends for those
//! who had their time, fresh links for those who are late. And the counters.

use super::{LEAVE_PER_SECOND, STALLED_MAX, Worker, unix_ms};
use crate::{
    event::{Event, EventId, Frames},
    fanout::{
        client::{Client, CloseReason, FAREWELL_MAX},
        queue::Phase,
    },
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

impl Worker {
    /// All clients are asked to reconnect elsewhere, each at some time in the window.
    pub(super) fn stop(&mut self, window: Duration, now: Instant) {
        self.is_stopping = true;
        let count = u32::try_from(self.clients.len()).unwrap_or(u32::MAX).max(1);
        let window = window.min(Duration::from_secs(1) * count / LEAVE_PER_SECOND);
        for (n, (_, client)) in (0u32..).zip(self.clients.iter_mut()) {
            client.leave_at = Some(now + window * n / count);
            if let Phase::Leaving { by, .. } = &mut client.queue.phase {
                *by = (*by).min(now + FAREWELL_MAX);
            }
        }
    }

    /// Notifies all clients once when the source goes, and once when it is back.
    fn notify_source(&mut self, now: Instant) {
        let source = self.settings.source.state();
        if source.is_away == self.is_away {
            return;
        }
        self.is_away = source.is_away;
        let notice = Arc::new(Event::source(source, unix_ms()));
        for key in self.keys() {
            let Some(client) = self.clients.get_mut(key) else { continue };
            if matches!(client.queue.phase, Phase::Leaving { .. }) {
                continue;
            }
            client.queue.give([notice.clone()]);
            if !client.is_blocked {
                self.advance(key, now);
            }
        }
    }

    /// Heartbeats for the idle, ends for those who had their time, fresh links for those who are late.
    pub(super) fn tick(&mut self, now: Instant) {
        self.ring.refresh(&self.settings.signer, now);
        self.notify_source(now);
        let Some(epoch) = self.epoch.clone() else { return self.end_expired(now) };
        let unix_ms = unix_ms();
        let head = EventId { epoch: epoch.clone(), mark: self.ring.head() };
        let source = self.settings.source.state();
        let shared = Frames::heartbeat(&head.to_string(), source, unix_ms);
        let (mut gone, mut ends) = (Vec::new(), Vec::new());
        for (key, client) in &mut self.clients {
            client.queue.refresh(&self.settings.signer, now);
            let idle = now.saturating_duration_since(client.wrote_at);
            if matches!(client.queue.phase, Phase::Leaving { .. }) {
                continue;
            }
            if client.leave_at.is_some_and(|at| at <= now) {
                ends.push((key, CloseReason::Restart));
            } else if client.is_blocked {
                if idle >= STALLED_MAX {
                    ends.push((key, CloseReason::Slow));
                }
            } else if idle >= self.settings.heartbeats[client.queue.channel as usize] && client.queue.is_drained() {
                let channel = client.queue.channel;
                let written = if client.queue.is_up_to_date(&self.ring) {
                    client.write_now(shared.of(channel), &self.ring, &mut self.tally, now)
                } else {
                    let own = client.queue.own_heartbeat(&epoch, source, unix_ms);
                    client.write_now(&own, &self.ring, &mut self.tally, now)
                };
                if written.is_err() {
                    gone.push(key);
                }
            }
        }
        for key in gone {
            self.remove(key);
        }
        for (key, reason) in ends {
            self.dismiss(key, reason, now);
        }
        self.end_expired(now);
    }

    fn end_expired(&mut self, now: Instant) {
        let is_over = |client: &Client| match client.queue.phase {
            Phase::Leaving { by, .. } => by <= now,
            _ => self.epoch.is_none() && client.leave_at.is_some_and(|at| at <= now),
        };
        let over: Vec<usize> = self.clients.iter().filter(|(_, c)| is_over(c)).map(|(key, _)| key).collect();
        for key in over {
            self.remove(key);
        }
    }

    /// To the counters, once for everything that was written.
    pub(super) fn report(&mut self) {
        let unix_ms = if self.tally.stored_unix_ms.is_empty() { 0 } else { unix_ms() };
        for (channel, stored) in self.tally.stored_unix_ms.drain(..) {
            self.handles.lag[channel as usize].record((unix_ms - stored).max(0) as f64 / 1000.0);
        }
        for (counter, events) in self.handles.published.iter().zip(&mut self.tally.events) {
            counter.increment(std::mem::take(events));
        }
        for (counter, notices) in self.handles.notices.iter().zip(&mut self.tally.notices) {
            counter.increment(std::mem::take(notices));
        }
        self.handles.conflated.increment(std::mem::take(&mut self.tally.conflated));
    }
}
