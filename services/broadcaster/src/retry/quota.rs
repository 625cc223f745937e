//! How far the stream of retries may be filled. Values only: `reserve` measures the stream and asks here.
//!
//! The stream itself has no limit: one that takes schedules may not refuse new messages, and discarding old ones
//! would lose events. So the limit is enforced here, before each store.
//!
//! Replicas know of each other only through the stream. Suppose three of them measure it at the same moment and find
//! 16 MB free: if each used all of it, the limit would be exceeded by 32 MB. So a replica uses at most a sixteenth of what
//! it found free, and only for a moment, before it measures again. The limit can still be exceeded, but only by what the
//! others reserved from the same measurement.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// What a record takes in addition to its event, roughly: headers, subject, and the overhead of the store.
pub const RECORD_BYTES: usize = 800;
/// One of this many parts of the free quota is used before the next measurement.
const SHARES_PER_MEASUREMENT: u64 = 16;
/// A measurement is used no longer than this: other replicas store as well.
const MEASUREMENT_AGE_MAX: Duration = Duration::from_millis(250);
/// A stream that was found full is not measured again before this.
const REMEASURE_INTERVAL: Duration = Duration::from_millis(100);

/// The quota of all retries, and the right to measure them.
#[derive(Debug)]
pub struct RetryQuota {
    limit: u64,
    usage: Mutex<Usage>,
    /// Held during a measurement; the tasks that wait for it use its result.
    pub measuring: tokio::sync::Mutex<()>,
}

/// The last measurement, and the bytes that were reserved since. The sums only grow.
#[derive(Debug, Default)]
struct Usage {
    last: Option<Measurement>,
    /// Reserved so far.
    reserved: u64,
    /// Of that, stored or given up: in the next measurement, if it is in the stream at all.
    settled: u64,
}

#[derive(Debug, Clone, Copy)]
struct Measurement {
    /// Bytes in the stream.
    bytes: u64,
    at: Instant,
    /// The sum when it began: what was settled before is in `bytes`. What was on its way may be, and counts twice.
    settled_before: u64,
    reserved_after: u64,
}

/// The sum of settled bytes when a measurement began.
#[derive(Debug, Clone, Copy)]
pub struct MeasurementStart(u64);

/// The answer to a request for a part of the quota.
#[derive(Debug)]
pub enum QuotaAnswer<'a> {
    /// Reserved; drop it when the record is stored or given up.
    Reserved(Reservation<'a>),
    /// The last measurement is too old, or its share is used: measure, and ask again.
    MeasureFirst,
    /// Nothing is free now.
    Full,
    /// The event is larger than the whole quota.
    TooLarge,
}

/// The part of one record that is on its way into the stream.
#[derive(Debug)]
pub struct Reservation<'a> {
    quota: &'a RetryQuota,
    bytes: u64,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.quota.lock().settled += self.bytes;
    }
}

impl RetryQuota {
    /// Of so many bytes.
    pub fn new(limit: u64) -> Self {
        Self { limit, usage: Mutex::default(), measuring: tokio::sync::Mutex::default() }
    }

    /// The whole quota, in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// A measurement begins.
    pub fn begin_measurement(&self) -> MeasurementStart {
        MeasurementStart(self.lock().settled)
    }

    /// It found so many bytes in the stream.
    pub fn end_measurement(&self, began: MeasurementStart, bytes: u64, now: Instant) {
        let mut usage = self.lock();
        usage.last = Some(Measurement { bytes, at: now, settled_before: began.0, reserved_after: usage.reserved });
    }

    /// Reserves the part of an event of so many bytes and its record.
    pub fn reserve(&self, event_bytes: usize, now: Instant) -> QuotaAnswer<'_> {
        let bytes = (event_bytes + RECORD_BYTES) as u64;
        if bytes > self.limit {
            return QuotaAnswer::TooLarge;
        }
        let mut usage = self.lock();
        let Some(measured) = usage.last else { return QuotaAnswer::MeasureFirst };
        let free = |reserved: u64| self.limit.saturating_sub(measured.bytes + (reserved - measured.settled_before));
        if bytes > free(usage.reserved) {
            return if now.duration_since(measured.at) < REMEASURE_INTERVAL {
                QuotaAnswer::Full
            } else {
                QuotaAnswer::MeasureFirst
            };
        }
        if now.duration_since(measured.at) >= MEASUREMENT_AGE_MAX {
            return QuotaAnswer::MeasureFirst;
        }
        let since = usage.reserved - measured.reserved_after;
        // One that is larger than the share is stored right after a check, otherwise it would wait forever.
        if since > 0 && since + bytes > free(measured.reserved_after) / SHARES_PER_MEASUREMENT {
            return QuotaAnswer::MeasureFirst;
        }
        usage.reserved += bytes;
        QuotaAnswer::Reserved(Reservation { quota: self, bytes })
    }

    fn lock(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The stream, and what a replica does that stores as much as it may.
    fn fill(quota: &RetryQuota, stored: &mut u64, event: usize, now: Instant) -> Option<u64> {
        let mut measurements = 0;
        loop {
            match quota.reserve(event, now) {
                QuotaAnswer::Reserved(_) => *stored += (event + RECORD_BYTES) as u64,
                QuotaAnswer::MeasureFirst => {
                    measurements += 1;
                    quota.end_measurement(quota.begin_measurement(), *stored, now);
                }
                QuotaAnswer::Full => return Some(measurements),
                QuotaAnswer::TooLarge => return None,
            }
        }
    }

    #[test]
    fn the_limit_is_reached_and_not_passed_and_few_looks_are_needed() {
        let (quota, now, mut stored) = (RetryQuota::new(10_000_000), Instant::now(), 0);
        let measurements = fill(&quota, &mut stored, 200, now).unwrap();
        assert_eq!(stored, 10_000_000, "of a thousand bytes each");
        assert!(measurements < 150, "{measurements} looks");
        assert!(matches!(quota.reserve(200, now), QuotaAnswer::Full));
        assert!(
            matches!(quota.reserve(200, now + REMEASURE_INTERVAL), QuotaAnswer::MeasureFirst),
            "an operator may have freed space"
        );
    }

    #[test]
    fn replicas_that_do_not_know_of_each_other_keep_the_limit_together() {
        let (quotas, now, mut stored) = ([0; 3].map(|_| RetryQuota::new(1_000_000)), Instant::now(), 0);
        // All measure at the same moment, then each stores what it may.
        for _ in 0..200 {
            quotas.iter().for_each(|quota| quota.end_measurement(quota.begin_measurement(), stored, now));
            for quota in &quotas {
                while let QuotaAnswer::Reserved(_) = quota.reserve(200, now) {
                    stored += 1000;
                }
            }
        }
        assert!((990_000..=1_002_000).contains(&stored), "{stored}: one record of each may be too many");
    }

    #[test]
    fn what_is_on_its_way_during_a_look_counts() {
        let (quota, now) = (RetryQuota::new(8000), Instant::now());
        quota.end_measurement(quota.begin_measurement(), 0, now);
        let QuotaAnswer::Reserved(on_its_way) = quota.reserve(3200, now) else { panic!("a half is free") };
        let began = quota.begin_measurement();
        drop(on_its_way);
        quota.end_measurement(began, 0, now);
        assert!(matches!(quota.reserve(3201, now), QuotaAnswer::Full), "the look may not have seen it");
        quota.end_measurement(quota.begin_measurement(), 4000, now);
        assert!(matches!(quota.reserve(3200, now), QuotaAnswer::Reserved(_)), "now it has");
    }

    #[test]
    fn what_is_larger_than_a_share_goes_after_a_look_and_what_is_larger_than_all_never() {
        let (quota, now) = (RetryQuota::new(10_000), Instant::now());
        assert!(matches!(quota.reserve(0, now), QuotaAnswer::MeasureFirst), "nothing is known");
        quota.end_measurement(quota.begin_measurement(), 0, now);
        assert!(matches!(quota.reserve(9200, now), QuotaAnswer::Reserved(_)));
        assert!(matches!(quota.reserve(9201, now), QuotaAnswer::TooLarge));
        quota.end_measurement(quota.begin_measurement(), u64::from(u32::MAX), now);
        assert!(matches!(quota.reserve(0, now), QuotaAnswer::Full), "another replica stored more than the limit");
        quota.end_measurement(quota.begin_measurement(), 0, now);
        assert!(
            matches!(quota.reserve(0, now + MEASUREMENT_AGE_MAX), QuotaAnswer::MeasureFirst),
            "others may have used it"
        );
    }
}
