//! Schedules on the days when clocks change, held against an oracle that knows nothing of cron libraries.
//!
//! The oracle walks over every minute and looks at the clock on the wall. An expression that follows the wall
//! runs at each minute whose time matches. Any other runs when a matching time is shown that was never shown
//! before, and at the first minute after a gap that left a matching time out.

use agentforge_orchestrator::cron::Clockwork;
use agentforge_proto::time::Micros;
use jiff::Timestamp;
use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;

const ZONES: [&str; 12] = [
    "Europe/Vienna",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "America/Havana",
    "America/Santiago",
    "Asia/Beirut",
    "Africa/Cairo",
    "Pacific/Apia",
    "Africa/Casablanca",
    "America/St_Johns",
    "Pacific/Chatham",
];

/// Minutes looked at on either side of a change of the clock.
const AROUND: i64 = 27 * 60;

/// One field: its text, and the values it stands for.
struct Field {
    text: String,
    values: BTreeSet<i8>,
    star: bool,
}

/// A field made by chance: `*`, a step, a value, a list, a range, a range with a step.
fn field(rng: &mut StdRng, low: i8, high: i8, stars: f64) -> Field {
    let some = |rng: &mut StdRng| rng.random_range(low..=high);
    if rng.random_bool(stars) {
        let step: i8 = *[1, 2, 5, 7, 15, 20].choose(rng).unwrap();
        let step = step.min(high - low);
        let text = if step == 1 { "*".to_owned() } else { format!("*/{step}") };
        return Field { text, values: (low..=high).step_by(step.unsigned_abs().into()).collect(), star: true };
    }
    let (a, b) = (some(rng), some(rng));
    let (from, to) = (a.min(b), a.max(b));
    let (text, values): (String, BTreeSet<i8>) = match rng.random_range(0..4) {
        0 => (a.to_string(), BTreeSet::from([a])),
        1 => {
            let values: BTreeSet<i8> = (0..rng.random_range(2..5)).map(|_| some(rng)).collect();
            (values.iter().map(ToString::to_string).collect::<Vec<_>>().join(","), values)
        }
        2 => (format!("{from}-{to}"), (from..=to).collect()),
        _ => {
            let step = rng.random_range(1..=(to - from + 1));
            (format!("{from}-{to}/{step}"), (from..=to).step_by(step.unsigned_abs().into()).collect())
        }
    };
    Field { text, values, star: false }
}

struct Expression {
    text: String,
    /// By minute of the day.
    times: Vec<bool>,
    follows_wall: bool,
    days: Field,
    months: Field,
    weekdays: Field,
}

impl Expression {
    fn by_chance(rng: &mut StdRng) -> Self {
        let minute = field(rng, 0, 59, 0.15);
        // Clocks change at night: half of the expressions are about the hours where it matters.
        let hour = match rng.random_bool(0.5) {
            true => field(rng, 0, 4, 0.0),
            false => field(rng, 0, 23, 0.2),
        };
        let every = |low, high| Field { text: "*".into(), values: (low..=high).collect(), star: true };
        let days = if rng.random_bool(0.7) { every(1, 31) } else { field(rng, 1, 31, 0.0) };
        let months = if rng.random_bool(0.7) { every(1, 12) } else { field(rng, 1, 12, 0.0) };
        let weekdays = if rng.random_bool(0.7) { every(0, 6) } else { field(rng, 0, 6, 0.0) };
        let text = [&minute, &hour, &days, &months, &weekdays].map(|f| f.text.as_str()).join(" ");
        let times = (0..1440_i16)
            .map(|m| hour.values.contains(&((m / 60) as i8)) && minute.values.contains(&((m % 60) as i8)))
            .collect();
        Self { text, times, follows_wall: minute.star || hour.star, days, months, weekdays }
    }

    /// A day matches by either field, where both say something.
    fn matches_day(&self, day: Date) -> bool {
        let by_day = self.days.values.contains(&day.day());
        let by_weekday = self.weekdays.values.contains(&day.weekday().to_sunday_zero_offset());
        let matches = match (self.days.star, self.weekdays.star) {
            (false, false) => by_day || by_weekday,
            _ => by_day && by_weekday,
        };
        matches && self.months.values.contains(&day.month())
    }

    /// Whether the wall shows a matching time; `wall` counts minutes from 1970 as the wall does.
    fn matches(&self, wall: i64) -> bool {
        self.times[usize::try_from(wall.rem_euclid(1440)).unwrap()] && self.matches_day(day_of(wall))
    }
}

fn day_of(wall: i64) -> Date {
    date(1970, 1, 1).checked_add(jiff::Span::new().days(wall.div_euclid(1440))).unwrap()
}

/// Minutes since 1970, and what the wall shows then.
fn wall(zone: &TimeZone, minute: i64) -> i64 {
    let offset = zone.to_offset(Timestamp::from_second(minute * 60).unwrap()).seconds();
    assert_eq!(offset % 60, 0, "offsets of our time are whole minutes");
    minute + i64::from(offset) / 60
}

/// Every run from `from` (exclusive) to `to`, minutes since 1970.
fn walk(e: &Expression, zone: &TimeZone, from: i64, to: i64) -> Vec<i64> {
    // What was shown before: a day back is further than any change of a clock goes today.
    let mut shown = (from - 1440..=from).map(|m| wall(zone, m)).max().unwrap();
    let mut before = wall(zone, from);
    let mut runs = vec![];
    for minute in from + 1..=to {
        let now = wall(zone, minute);
        let due = if e.follows_wall {
            e.matches(now)
        } else {
            let left_out = before + 1..now;
            (now > shown && e.matches(now)) || left_out.into_iter().any(|t| t > shown && e.matches(t))
        };
        if due {
            runs.push(minute);
        }
        shown = shown.max(now);
        before = now;
    }
    runs
}

/// What the product says for the same stretch.
fn asked(clock: &Clockwork, from: i64, to: i64) -> Vec<i64> {
    let minutes = |m: Micros| {
        assert_eq!(m.0 % 60_000_000, 0);
        m.0 / 60_000_000
    };
    clock.runs(Micros(from * 60_000_000)).map(minutes).take_while(|m| *m <= to).collect()
}

#[test]
fn schedules_agree_with_a_walk_over_every_minute_of_ten_years() {
    let soak = std::env::var_os("AGENTFORGE_SOAK").is_some();
    let expressions = if soak { 1_000 } else { 24 };
    let seed: u64 = rand::random();
    let mut rng = StdRng::seed_from_u64(seed);
    let first = date(2026, 1, 1);
    let start = first.to_zoned(TimeZone::UTC).unwrap().timestamp();
    let end = date(2036, 1, 1).to_zoned(TimeZone::UTC).unwrap().timestamp();
    let (mut compared, mut changes) = (0, 0);
    for n in 0..expressions {
        let e = Expression::by_chance(&mut rng);
        for name in ZONES {
            let zone = TimeZone::get(name).unwrap();
            let clock = Clockwork::stored(&e.text, name).unwrap();
            let mut stretches: Vec<i64> = zone
                .following(start)
                .take_while(|change| change.timestamp() < end)
                .map(|change| change.timestamp().as_second().div_euclid(60))
                .collect();
            changes += stretches.len();
            // Two ordinary days as well, anywhere.
            stretches.extend((0..2).map(|_| rng.random_range(start.as_second() / 60..end.as_second() / 60)));
            for middle in stretches {
                let (from, to) = (middle - AROUND, middle + AROUND);
                let (wanted, got) = (walk(&e, &zone, from, to), asked(&clock, from, to));
                compared += wanted.len();
                let shown = |runs: &[i64]| {
                    let times = runs.iter().map(|m| Timestamp::from_second(m * 60).unwrap().to_string());
                    times.collect::<Vec<_>>().join(" ")
                };
                let told = format!("seed {seed}, expression {n}: {:?} in {name}", e.text);
                assert_eq!(shown(&got), shown(&wanted), "{told}");
            }
        }
    }
    assert!(
        compared > expressions * 100 && changes > expressions * 100,
        "{compared} runs, {changes} changes of clocks"
    );
}
