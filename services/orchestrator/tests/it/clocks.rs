//! Schedules on the days when clocks change, held against an oracle that knows nothing of cron libraries.
//!
//! The oracle walks over every minute and looks at the clock on the wall. An expression that follows the wall
//! runs at each minute whose time matches. Any other runs when a matching time is shown that was never shown
//! before, and at the first minute after a gap that left a matching time out. What the wall shows it has from
//! Python's zoneinfo, so that it shares no reading of zones with the product either.

use agentforge_orchestrator::cron::Clockwork;
use agentforge_proto::time::Micros;
use jiff::Timestamp;
use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

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
        let hour = if rng.random_bool(0.5) { field(rng, 0, 4, 0.0) } else { field(rng, 0, 23, 0.2) };
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

/// The ten years, and days around them, seconds since 1970.
fn years() -> (i64, i64) {
    let second = |year| date(year, 1, 1).to_zoned(TimeZone::UTC).unwrap().timestamp().as_second();
    (second(2026), second(2036))
}
/// So much more is known on either side.
const MARGIN: i64 = 4 * 86_400;

/// A zone by its changes, seconds since 1970 each with the offset from then on, in seconds.
struct Zone {
    changes: Vec<(i64, i64)>,
}

impl Zone {
    /// All of them, by name, as Python has them.
    fn of_python() -> BTreeMap<String, Self> {
        let (from, to) = years();
        let out = Command::new("python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/zone_offsets.py"))
            .args([from - MARGIN, to + MARGIN].map(|second| second.to_string()))
            .args(ZONES)
            .output()
            .expect("python3 is there");
        let problem = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "python3 has no zones (Debian's tzdata, or tzdata of PyPI)? {problem}");
        let mut zones: BTreeMap<String, Self> = BTreeMap::new();
        for line in String::from_utf8(out.stdout).unwrap().lines() {
            let [name, second, offset] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let change = (second.parse().unwrap(), offset.parse().unwrap());
            zones.entry(name.to_owned()).or_insert_with(|| Self { changes: vec![] }).changes.push(change);
        }
        assert_eq!(zones.len(), ZONES.len());
        zones
    }

    /// Minutes since 1970, and what the wall shows then.
    fn wall(&self, minute: i64) -> i64 {
        let after = self.changes.partition_point(|(second, _)| *second <= minute * 60);
        let (_, offset) = self.changes[after - 1];
        assert_eq!(offset % 60, 0, "offsets of our time are whole minutes");
        minute + offset / 60
    }
}

#[test]
fn zones_are_as_python_has_them() {
    let (from, to) = years();
    let end = Timestamp::from_second(to + MARGIN).unwrap();
    let mut changes = 0;
    for (name, python) in Zone::of_python() {
        let zone = TimeZone::get(&name).unwrap();
        let begin = Timestamp::from_second(from - MARGIN).unwrap();
        let offset = |t: Timestamp| (t.as_second(), i64::from(zone.to_offset(t).seconds()));
        // A change of something other than the offset (a name, whether it is summer) does not count here.
        let mut ours = vec![offset(begin)];
        for change in zone.following(begin).take_while(|change| change.timestamp() < end) {
            let change = offset(change.timestamp());
            if ours.last().is_some_and(|(_, before)| *before != change.1) {
                ours.push(change);
            }
        }
        assert_eq!(ours, python.changes, "{name}: jiff on the left, zoneinfo on the right");
        changes += ours.len() - 1;
    }
    assert!(changes > 150, "{changes} changes of clocks");
}

/// Every run from `from` (exclusive) to `to`, minutes since 1970.
fn walk(e: &Expression, zone: &Zone, from: i64, to: i64) -> Vec<i64> {
    // What was shown before: a day back is further than any change of a clock goes today.
    let mut shown = (from - 1440..=from).map(|m| zone.wall(m)).max().unwrap();
    let mut before = zone.wall(from);
    let mut runs = vec![];
    for minute in from + 1..=to {
        let now = zone.wall(minute);
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
    let zones = Zone::of_python();
    let (start, end) = years();
    let (mut compared, mut changes) = (0, 0);
    for n in 0..expressions {
        let e = Expression::by_chance(&mut rng);
        for name in ZONES {
            let zone = &zones[name];
            let clock = Clockwork::stored(&e.text, name).unwrap();
            let mut stretches: Vec<i64> = zone
                .changes
                .iter()
                .filter(|(second, _)| (start..end).contains(second))
                .map(|(second, _)| second.div_euclid(60))
                .collect();
            changes += stretches.len();
            // Two ordinary days as well, anywhere.
            stretches.extend((0..2).map(|_| rng.random_range(start / 60..end / 60)));
            for middle in stretches {
                let (from, to) = (middle - AROUND, middle + AROUND);
                let (wanted, got) = (walk(&e, zone, from, to), asked(&clock, from, to));
                compared += wanted.len();
                let shown = |runs: &[i64]| {
                    let times = runs.iter().map(|m| Timestamp::from_second(m * 60).unwrap().to_string());
                    times.collect::<Vec<_>>().join(" ")
                };
                let context = format!("seed {seed}, expression {n}: {:?} in {name}", e.text);
                assert_eq!(shown(&got), shown(&wanted), "{context}");
            }
        }
    }
    assert!(
        compared > expressions * 100 && changes > expressions * 100,
        "{compared} runs, {changes} changes of clocks"
    );
}
