//! When a schedule runs: cron expressions in a time zone. Pure.
//!
//! Five fields. Fixed times run once where a clock is set back, and right after the gap where it is
//! set forward; `*/30` and hourly ones follow the clock on the wall.

use crate::error::Error;
use agentforge_proto::time::Micros;
use croner::Cron;
use croner::parser::{CronParser, Seconds};
use jiff::tz::TimeZone;

/// A parsed cron expression with its time zone.
#[derive(Clone, Debug)]
pub struct Clockwork {
    cron: Cron,
    zone: TimeZone,
}

impl Clockwork {
    /// Parses both, and checks that there is a next time at all (31 February has none).
    ///
    /// # Errors
    /// `invalid_argument` on `cron` or `time_zone`.
    pub fn new(cron: &str, time_zone: &str) -> Result<Self, Error> {
        if cron.len() > 256 {
            return Err(Error::field("cron", "cron is longer than 256 bytes"));
        }
        let parsed = CronParser::builder().seconds(Seconds::Disallowed).build().parse(cron).map_err(|e| {
            let hint = "expected five fields: minute hour day-of-month month day-of-week, such as 30 6 * * MON-FRI";
            Error::field("cron", format!("cron {cron:?} is not valid ({e}); {hint}"))
        })?;
        let name = if time_zone.is_empty() { "UTC" } else { time_zone };
        let zone = TimeZone::get(name).map_err(|_| {
            let shown: String = name.chars().take(80).collect();
            Error::field(
                "time_zone",
                format!("time_zone {shown:?} is not known; expected an IANA name, such as Europe/Vienna"),
            )
        })?;
        let clockwork = Self { cron: parsed, zone };
        if clockwork.after(Micros::now()).is_none() {
            return Err(Error::field("cron", format!("cron {cron:?} never comes true")));
        }
        Ok(clockwork)
    }

    /// The first time after `t`; `None` when there is none.
    pub fn after(&self, t: Micros) -> Option<Micros> {
        let zoned = t.timestamp().to_zoned(self.zone.clone());
        self.cron.find_next_occurrence(&zoned, false).ok().map(|z| Micros::from(z.timestamp()))
    }

    /// The next `n` times after `t`.
    pub fn next_runs(&self, t: Micros, n: usize) -> Vec<Micros> {
        std::iter::successors(self.after(t), |t| self.after(*t)).take(n).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn at(s: &str) -> Micros {
        s.parse::<Timestamp>().unwrap().into()
    }

    fn runs(cron: &str, zone: &str, from: &str, n: usize) -> Vec<String> {
        let c = Clockwork::new(cron, zone).unwrap();
        c.next_runs(at(from), n).into_iter().map(|m| m.timestamp().to_string()).collect()
    }

    #[test]
    fn a_local_time_follows_the_zone_over_dst() {
        let got = runs("30 6 * * *", "Europe/Vienna", "2026-03-27T12:00:00Z", 3);
        assert_eq!(got, ["2026-03-28T05:30:00Z", "2026-03-29T04:30:00Z", "2026-03-30T04:30:00Z"]);
    }

    #[test]
    fn a_time_in_the_skipped_hour_runs_right_after_it() {
        let got = runs("30 2 * * *", "Europe/Vienna", "2026-03-28T12:00:00Z", 1);
        assert_eq!(got, ["2026-03-29T01:00:00Z"]);
    }

    #[test]
    fn a_time_in_the_repeated_hour_runs_once() {
        let got = runs("30 2 * * *", "Europe/Vienna", "2026-10-24T12:00:00Z", 2);
        assert_eq!(got, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_field() {
        for (cron, zone, field) in [
            ("61 * * * *", "UTC", "cron"),
            ("* * * * * *", "UTC", "cron"),
            ("0 0 31 2 *", "UTC", "cron"),
            ("", "UTC", "cron"),
            ("* * * * *", "Mars/Olympus", "time_zone"),
        ] {
            assert_eq!(Clockwork::new(cron, zone).unwrap_err().field, Some(field), "{cron} {zone}");
        }
    }
}
