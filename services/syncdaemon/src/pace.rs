//! How much may be on the link at once, and how fast: pure counting with the time given from outside.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A bucket of this much of the rate may go out at once: short enough for a smooth link.
const BURST_DURATION: Duration = Duration::from_millis(100);
/// The slowest link on which a lone publish must not run out of time, in bits per second.
const SLOWEST_LINK_BPS: u64 = 256_000;
/// What an acknowledgement takes at most, in addition to the time of its bytes.
const ACK_MAX: Duration = Duration::from_secs(5);
/// Over how long bandwidth is measured.
const RATE_WINDOW: Duration = Duration::from_secs(5);

/// Bits per second on the uplink, as a token bucket that may go into debt: a message larger than the
/// bucket goes out whole, and what comes after it waits for as long as it took.
#[derive(Debug)]
pub struct TokenBucket {
    bytes_per_s: f64,
    tokens: f64,
    at: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(bits_per_s: u64, now: Instant) -> Self {
        let bytes_per_s = bits_per_s as f64 / 8.0;
        Self { bytes_per_s, tokens: bytes_per_s * BURST_DURATION.as_secs_f64(), at: now }
    }

    /// Takes the bytes when the bucket is not in debt; else how long to wait before asking again.
    pub fn take(&mut self, bytes: usize, now: Instant) -> Result<(), Duration> {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * self.bytes_per_s;
        self.tokens = (self.tokens + gained).min(self.bytes_per_s * BURST_DURATION.as_secs_f64());
        self.at = now;
        if self.tokens < 0.0 {
            return Err(Duration::from_secs_f64(-self.tokens / self.bytes_per_s));
        }
        self.tokens -= bytes as f64;
        Ok(())
    }
}

/// How many messages may be in flight: fewer after one ran out of time, slowly more while all goes well.
/// A thin link is so not filled with more than it can carry before the acknowledgements are due.
#[derive(Debug)]
pub struct CongestionWindow {
    now: f64,
    max: f64,
}

impl CongestionWindow {
    /// All of it.
    pub fn new(max: usize) -> Self {
        Self { now: max as f64, max: max as f64 }
    }

    /// Messages that may be in flight, at least one.
    pub fn get(&self) -> usize {
        self.now as usize
    }

    /// An acknowledgement came.
    pub fn acknowledged(&mut self) {
        self.now = (self.now + 1.0 / self.now).min(self.max);
    }

    /// One did not come in time.
    pub fn timed_out(&mut self) {
        self.now = (self.now / 2.0).max(1.0);
    }
}

/// How long an acknowledgement is waited for when this many bytes are in flight, its own included.
pub fn ack_limit(bytes_in_flight: usize) -> Duration {
    ACK_MAX + Duration::from_millis((bytes_in_flight as u64).saturating_mul(8_000) / SLOWEST_LINK_BPS)
}

/// What went out lately, in bits per second.
#[derive(Debug, Default)]
pub struct RateMeter {
    sent: VecDeque<(Instant, u64)>,
}

impl RateMeter {
    /// Adds what went out since the last call, and gives the rate over the last 5 s. Call it at a steady
    /// pace of a fraction of a second: that bounds what is kept.
    pub fn rate_bps(&mut self, bytes: u64, now: Instant) -> f64 {
        self.sent.push_back((now, bytes));
        while self.sent.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= RATE_WINDOW) {
            self.sent.pop_front();
        }
        self.sent.iter().map(|(_, bytes)| *bytes).sum::<u64>() as f64 * 8.0 / RATE_WINDOW.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn a_bucket_keeps_its_rate_over_time() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(80_000, start);
        let (mut now, mut sent) = (start, 0usize);
        while now < start + Duration::from_secs(10) {
            match bucket.take(700, now) {
                Ok(()) => sent += 700,
                Err(wait) => now += wait,
            }
            assert!(sent < 110_000, "{sent}");
        }
        assert!((95_000..=110_000).contains(&sent), "{sent} bytes in 10 s at 10,000 bytes/s");
    }

    #[test]
    fn a_message_larger_than_the_bucket_goes_out_and_is_paid_for() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(8_000, start);
        bucket.take(5_100, start).unwrap();
        let wait = bucket.take(1, start).unwrap_err();
        assert_eq!(wait, Duration::from_secs(5));
        bucket.take(1, start + wait).unwrap();
        let idle = start + Duration::from_secs(3600);
        bucket.take(100, idle).unwrap();
        bucket.take(1, idle).unwrap();
        assert!(bucket.take(1, idle).is_err(), "an idle hour is no credit");
    }

    #[test]
    fn room_halves_on_silence_and_grows_again() {
        let mut room = CongestionWindow::new(64);
        room.timed_out();
        assert_eq!(room.get(), 32);
        (0..20).for_each(|_| room.timed_out());
        assert_eq!(room.get(), 1);
        (0..10_000).for_each(|_| room.acknowledged());
        assert_eq!(room.get(), 64);
    }

    #[test]
    fn the_limit_of_an_acknowledgement_leaves_time_for_its_bytes() {
        let cases = [(0, MS(5_000)), (32_000, MS(6_000)), (1 << 20, MS(5_000 + 32_768))];
        for (bytes, expected) in cases {
            assert_eq!(ack_limit(bytes), expected, "{bytes}");
        }
    }

    #[test]
    fn the_meter_shows_five_seconds_and_falls_to_zero() {
        let start = Instant::now();
        let mut meter = RateMeter::default();
        assert_eq!(meter.rate_bps(5_000, start), 8_000.0);
        assert_eq!(meter.rate_bps(5_000, start + MS(1_000)), 16_000.0);
        assert_eq!(meter.rate_bps(0, start + MS(4_999)), 16_000.0);
        assert_eq!(meter.rate_bps(0, start + MS(5_000)), 8_000.0);
        assert_eq!(meter.rate_bps(0, start + MS(6_000)), 0.0);
    }
}
