//! When a schedule runs: cron expressions in a time zone. Pure.
//!
//! Five fields, read by croner; on the days when clocks change we decide ourselves. Where minute or hour begins
//! with `*` the schedule follows the clock on the wall: it runs whenever the wall shows such a time. Any other
//! names times of day: each comes once a day, right after the gap if the day has no such time, and the first
//! time round if the day has it twice. Times that fall together run once.

use crate::error::Error;
use agentforge_proto::time::Micros;
use croner::parser::{CronParser, Seconds};
use croner::{Cron, time::Weekday};
use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Span, Timestamp};

/// Longest expression, bytes.
const CRON_MAX_BYTES: usize = 256;

/// Years that are searched for a next time. The rarest possible is a weekday that is 29 February: 40 years apart around
/// a century that is not a leap year.
const YEARS_SEARCHED: i16 = 41;

/// The fields, with how many values each has.
const FIELDS: [(&str, u32); 5] =
    [("minute", 60), ("hour", 24), ("day-of-month", 31), ("month", 12), ("day-of-week", 7)];

/// A parsed cron expression with its time zone.
#[derive(Clone, Debug)]
pub struct Clockwork {
    cron: Cron,
    hours: Vec<i8>,
    minutes: Vec<i8>,
    follows_wall: bool,
    zone: TimeZone,
}

impl Clockwork {
    /// Parses both as somebody gave them, and checks that there is a next time at all (31 February has none).
    ///
    /// # Errors
    /// `invalid_argument` on `cron` or `time_zone`.
    pub fn new(cron: &str, time_zone: &str) -> Result<Self, Error> {
        let clockwork = Self::stored(cron, time_zone)?;
        if let Some(problem) = idle_step(clockwork.cron.as_str()) {
            return Err(Error::field("cron", format!("cron {cron:?} is not valid: {problem}")));
        }
        if clockwork.after(Micros::now()).is_none() {
            return Err(Error::field("cron", format!("cron {cron:?} never comes true")));
        }
        Ok(clockwork)
    }

    /// Parses what was accepted before, perhaps by a version that refused less.
    ///
    /// # Errors
    /// As [`Clockwork::new`].
    pub fn stored(cron: &str, time_zone: &str) -> Result<Self, Error> {
        if cron.len() > CRON_MAX_BYTES {
            return Err(Error::field("cron", format!("cron is longer than {CRON_MAX_BYTES} bytes")));
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
        let values = |field: Vec<u16>| field.into_iter().filter_map(|v| i8::try_from(v).ok()).collect();
        Ok(Self {
            hours: values(parsed.pattern.hours.values()),
            minutes: values(parsed.pattern.minutes.values()),
            follows_wall: parsed.as_str().split_whitespace().take(2).any(|field| field.starts_with('*')),
            cron: parsed,
            zone,
        })
    }

    /// The first time after `t`; `None` when there is none.
    pub fn after(&self, t: Micros) -> Option<Micros> {
        let t = t.timestamp();
        let end = self.zone.to_datetime(t).date().checked_add(Span::new().years(YEARS_SEARCHED)).ok()?;
        let found = if self.follows_wall { self.on_the_wall(t, end) } else { self.once_a_day(t, end) };
        found.map(Micros::from)
    }

    /// The next `n` times after `t`.
    pub fn next_runs(&self, t: Micros, n: usize) -> Vec<Micros> {
        self.runs(t).take(n).collect()
    }

    /// All times after `t`.
    pub fn runs(&self, t: Micros) -> impl Iterator<Item = Micros> + '_ {
        std::iter::successors(self.after(t), |t| self.after(*t))
    }

    /// Times of day, each of which is one moment. The moments come in the order of the times, so what the wall
    /// showed before `t` came before it too.
    fn once_a_day(&self, t: Timestamp, end: Date) -> Option<Timestamp> {
        let mut from = next_minute(self.zone.to_datetime(t))?;
        loop {
            let time = self.civil(from, end)?;
            let moment = self.moment(time)?;
            if moment > t {
                return Some(moment);
            }
            // The clock was set back, and this one has come the first time round.
            from = next_minute(time)?;
        }
    }

    /// Whenever the wall shows it: searched from one change of the clock to the next.
    fn on_the_wall(&self, t: Timestamp, end: Date) -> Option<Timestamp> {
        let mut from = t.checked_add(Span::new().microseconds(1)).ok()?;
        loop {
            let offset = self.zone.to_offset(from);
            let change = self.zone.following(from).next().map(|change| change.timestamp());
            let last = change.map_or(end, |change| offset.to_datetime(change).date().min(end));
            let time = self.civil(whole_minute(offset.to_datetime(from))?, last);
            let moment = time.and_then(|time| offset.to_timestamp(time).ok());
            if let Some(moment) = moment.filter(|moment| change.is_none_or(|change| *moment < change)) {
                return Some(moment);
            }
            from = change?;
            if self.zone.to_datetime(from).date() > end {
                return None;
            }
        }
    }

    /// When a time of day is, on its day in this zone.
    fn moment(&self, time: DateTime) -> Option<Timestamp> {
        match self.zone.to_ambiguous_timestamp(time).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(time).ok(),
            AmbiguousOffset::Fold { before, .. } => before.to_timestamp(time).ok(),
            AmbiguousOffset::Gap { before, after } => {
                let late = before.to_timestamp(time).ok()?;
                let early = after.to_timestamp(time).ok()?;
                let mut changes = self.zone.following(early).take_while(|change| change.timestamp() <= late);
                Some(changes.find(|change| change.offset() == after).map_or(late, |change| change.timestamp()))
            }
        }
    }

    /// The first time that matches, from `from` to the end of the day `last`.
    fn civil(&self, from: DateTime, last: Date) -> Option<DateTime> {
        let (mut date, mut hour, mut minute) = (from.date(), from.hour(), from.minute());
        while date <= last {
            if !self.cron.pattern.month_match(u32::from(date.month().unsigned_abs())).ok()? {
                date = date.last_of_month().tomorrow().ok()?;
            } else {
                if self.matches(date)
                    && let Some((hour, minute)) = self.time_of_day(hour, minute)
                {
                    return Some(date.at(hour, minute, 0, 0));
                }
                date = date.tomorrow().ok()?;
            }
            (hour, minute) = (0, 0);
        }
        None
    }

    fn matches(&self, date: Date) -> bool {
        let weekday = Weekday::from_days_from_sunday(u32::from(date.weekday().to_sunday_zero_offset().unsigned_abs()));
        let (month, day) = (u32::from(date.month().unsigned_abs()), u32::from(date.day().unsigned_abs()));
        self.cron.pattern.day_match(i32::from(date.year()), month, day, weekday).unwrap_or(false)
    }

    fn time_of_day(&self, hour: i8, minute: i8) -> Option<(i8, i8)> {
        let in_this_hour = || self.minutes.iter().find(|m| **m >= minute).map(|m| (hour, *m));
        let later = || Some((*self.hours.iter().find(|h| **h > hour)?, *self.minutes.first()?));
        if self.hours.contains(&hour) { in_this_hour().or_else(later) } else { later() }
    }
}

/// The whole minute at or after a time.
fn whole_minute(time: DateTime) -> Option<DateTime> {
    if time.second() == 0 && time.subsec_nanosecond() == 0 { Some(time) } else { next_minute(time) }
}

/// The whole minute after a time.
fn next_minute(time: DateTime) -> Option<DateTime> {
    time.date().at(time.hour(), time.minute(), 0, 0).checked_add(Span::new().minutes(1)).ok()
}

/// A step that is longer than what it steps through is never taken: `*/90` reads like every 90 minutes, and
/// would be each hour.
fn idle_step(pattern: &str) -> Option<String> {
    let fields = pattern.split_whitespace().zip(FIELDS);
    let parts = fields.flat_map(|(text, field)| text.split(',').map(move |part| (part, field)));
    parts.filter_map(|(part, field)| part.split_once('/').map(|(range, step)| (part, range, step, field))).find_map(
        |(part, range, step, (name, all))| {
            let values = match range.split_once('-') {
                Some((first, last)) => last.parse::<u32>().ok()?.checked_sub(first.parse().ok()?)? + 1,
                None => all,
            };
            let step: u32 = step.split('#').next()?.parse().ok()?;
            (step > values).then(|| {
                format!(
                    "{part} in the {name} field steps by {step}, which is more than the {values} values it steps \
                     through, so the step would never be taken; name the times as a list instead"
                )
            })
        },
    )
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
    fn lists_and_ranges_of_times_come_once_each_on_the_days_when_clocks_change() {
        // Expression, zone, from, and all runs of a day and a half.
        let table: [(&str, &str, &str, &[&str]); 12] = [
            ("30 2,14 * * *", "Europe/Vienna", "2027-03-27T23:00:00Z", &["01:00", "12:30"]),
            ("30 2,14 * * *", "Europe/Vienna", "2027-10-30T22:00:00Z", &["00:30", "13:30"]),
            ("0 1,2 * * *", "Europe/Vienna", "2027-03-27T23:00:00Z", &["00:00", "01:00"]),
            ("0 2,3 * * *", "Europe/Vienna", "2027-03-27T23:00:00Z", &["01:00", "00:00"]),
            ("30 1-3 * * *", "Europe/Vienna", "2027-03-27T23:00:00Z", &["00:30", "01:00", "01:30"]),
            ("0,30 2 * * *", "Europe/Vienna", "2027-03-27T23:00:00Z", &["01:00", "00:00"]),
            ("0-30/30 2 * * *", "Europe/Vienna", "2027-10-30T22:00:00Z", &["00:00", "00:30", "01:00"]),
            ("30 1,13 * * *", "America/New_York", "2027-11-07T04:00:00Z", &["05:30", "18:30"]),
            ("0,30 1,2 * * *", "Australia/Lord_Howe", "2027-10-02T13:30:00Z", &["14:30", "15:00", "15:30"]),
            ("*/30 2 * * *", "Europe/Vienna", "2027-03-27T23:00:00Z", &["00:00", "00:30"]),
            ("*/30 2 * * *", "Europe/Vienna", "2027-10-30T22:00:00Z", &["00:00", "00:30", "01:00", "01:30", "01:00"]),
            ("30 * * * *", "Europe/Vienna", "2027-10-31T00:00:00Z", &["00:30", "01:30", "02:30"]),
        ];
        for (cron, zone, from, wanted) in table {
            let got: Vec<_> = runs(cron, zone, from, wanted.len()).iter().map(|t| t[11..16].to_owned()).collect();
            assert_eq!(got, wanted, "{cron} {zone} from {from}");
        }
    }

    #[test]
    fn a_day_that_a_zone_leaves_out_is_a_gap_like_any_other() {
        let c = Clockwork::stored("0 12 * * *", "Pacific/Apia").unwrap();
        let got: Vec<_> =
            c.next_runs(at("2011-12-29T12:00:00Z"), 3).iter().map(|m| m.timestamp().to_string()).collect();
        // 30 December 2011 was left out: its noon comes with the first minute of the 31st.
        assert_eq!(got, ["2011-12-29T22:00:00Z", "2011-12-30T10:00:00Z", "2011-12-30T22:00:00Z"]);
    }

    #[test]
    fn a_step_that_would_never_be_taken_is_refused_and_stored_ones_go_on() {
        for cron in ["*/90 * * * *", "0 */25 * * *", "0 0 */32 * *", "0 0 1 */13 *", "0 0 * * */8", "0-29/31 * * * *"] {
            let refused = Clockwork::new(cron, "UTC").unwrap_err();
            assert!(refused.field == Some("cron") && refused.message.contains("never be taken"), "{refused:?}");
            assert!(Clockwork::stored(cron, "UTC").unwrap().after(at("2027-01-01T00:00:00Z")).is_some(), "{cron}");
        }
        for cron in ["*/60 * * * *", "*/59 * * * *", "0 */24 * * *", "0-29/30 * * * *", "5,*/7 * * * *", "@daily"] {
            assert_eq!(Clockwork::new(cron, "UTC").err().map(|e| e.message), None, "{cron}");
        }
    }

    #[test]
    fn the_rarest_day_is_found_and_one_that_never_comes_is_told_at_once() {
        assert_eq!(runs("0 0 29 2 +MON", "UTC", "2072-03-01T00:00:00Z", 1), ["2112-02-29T00:00:00Z"]);
        let began = std::time::Instant::now();
        for cron in ["0 0 30 2 *", "* * 31 4,6,9,11 *", "*/5 * 30 2 *"] {
            assert!(Clockwork::new(cron, "Europe/Vienna").is_err(), "{cron}");
        }
        // The last Sunday of March: the wall never shows 02:xx on it.
        assert!(Clockwork::new("* 2 29 3 +SUN", "Europe/Vienna").is_err());
        assert!(began.elapsed() < std::time::Duration::from_secs(2), "{:?}", began.elapsed());
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
