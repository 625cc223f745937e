//! The arithmetic of objectives: the worked examples, and random outages against a plain model.

use super::judgement::EVENTS_MIN;
use super::*;
use proptest::prelude::*;

/// A minute far from 1970, so that nothing is below it by accident.
const NOW: i64 = 29_000_000;

fn availability(target: f64) -> Objective {
    Objective {
        service: "orchestrator",
        name: "availability",
        unit: Unit::Seconds,
        target: Target::new(target).unwrap(),
        window_minutes: WINDOW_MINUTES,
        meaning: "",
    }
}

fn latency(target: f64) -> Objective {
    Objective { service: "jobs", name: "latency", unit: Unit::Events, ..availability(target) }
}

/// All seconds of the minutes up to NOW observed and up, but for `down` seconds that end at `until`.
fn month_with(down: i64, until: i64) -> Window {
    let mut window = Window::new(Unit::Seconds);
    let all = (1 << 60) - 1;
    let first = until * 60 - down;
    for minute in NOW - WINDOW_MINUTES - 10..=NOW {
        let bits = (0..60).filter(|s| !(first..until * 60).contains(&(minute * 60 + s))).map(|s| 1_i64 << s);
        window.merge(minute, all, bits.sum());
    }
    window
}

#[test]
fn the_budget_of_a_month_is_spent_second_by_second() {
    let two_days_ago = NOW - 2 * 1440;
    for (down, consumed, status) in [
        (0, 0.0, Status::Healthy),
        (1_296, 0.5, Status::Healthy),
        (2_073, 0.7998, Status::Healthy),
        (2_074, 0.8002, Status::AtRisk),
        (2_591, 0.9996, Status::AtRisk),
        (2_592, 1.0, Status::Breached),
        (3_888, 1.5, Status::Breached),
    ] {
        let found = judge(&availability(0.999), &month_with(down, two_days_ago), NOW).unwrap();
        assert!((found.consumed - consumed).abs() < 1e-4, "{down} s: {}", found.consumed);
        assert_eq!(found.status, status, "{down} s down");
        assert!((found.remaining() + found.consumed - 1.0).abs() < 1e-12);
        assert!((found.allowed - 2_592.0).abs() < 1e-6);
        assert_eq!((found.tally.total, found.tally.bad()), (WINDOW_MINUTES * 60, down));
    }
}

#[test]
fn an_outage_is_forgiven_when_it_leaves_the_window() {
    let window = month_with(2_592, NOW - WINDOW_MINUTES + 60);
    assert_eq!(judge(&availability(0.999), &window, NOW).unwrap().status, Status::Breached);
    // 43.2 minutes down, of which the last one still counts a moment later, and then none.
    let outage_over = NOW + 60;
    let mut later = window.clone();
    later.merge(outage_over, 1, 1);
    let found = judge(&availability(0.999), &later, outage_over).unwrap();
    assert_eq!((found.status, found.tally.bad()), (Status::Healthy, 0));
}

#[test]
fn no_data_is_no_judgement_and_unknown_time_is_neither_up_nor_down() {
    let mut window = Window::new(Unit::Seconds);
    assert_eq!(judge(&availability(0.999), &window, NOW), None);
    window.merge(NOW - WINDOW_MINUTES, 1, 1);
    assert_eq!(judge(&availability(0.999), &window, NOW), None, "only what is too old");
    window.merge(NOW, 0b111, 0b101);
    let found = judge(&availability(0.999), &window, NOW).unwrap();
    assert_eq!(found.tally, Tally { total: 3, good: 2 });
    assert_eq!(judge(&latency(0.95), &Window::new(Unit::Events), NOW), None);
}

#[test]
fn a_fast_burn_is_a_risk_while_both_windows_burn() {
    // 2 % of an hour's requests bad at 99.9 % burns twenty times too fast.
    let mut window = Window::new(Unit::Events);
    for minute in NOW - 4000..=NOW {
        window.merge(minute, 1000, if minute > NOW - 60 { 980 } else { 1000 });
    }
    let found = judge(&latency(0.999), &window, NOW).unwrap();
    assert_eq!(found.status, Status::AtRisk, "{found:?}");
    assert!(found.burn.contains(&(4320, 20.0 * 60.0 / 4001.0)) || found.burn[1].1 > 14.4);
    // Five good minutes later the short window is clean.
    for minute in NOW + 1..=NOW + 5 {
        window.merge(minute, 1000, 1000);
    }
    assert_eq!(judge(&latency(0.999), &window, NOW + 5).unwrap().status, Status::Healthy);
}

#[test]
fn a_handful_of_bad_events_pages_nobody() {
    let mut window = Window::new(Unit::Events);
    window.merge(NOW - 5000, 100_000, 100_000);
    window.merge(NOW, EVENTS_MIN - 1, 0);
    assert_eq!(judge(&latency(0.95), &window, NOW).unwrap().status, Status::Healthy);
    window.merge(NOW, EVENTS_MIN, 0);
    assert_eq!(judge(&latency(0.95), &window, NOW).unwrap().status, Status::AtRisk);
}

#[test]
fn targets_outside_of_zero_and_one_are_refused() {
    for bad in [0.0, 1.0, -0.1, 1.1, f64::NAN, f64::INFINITY] {
        assert_eq!(Target::new(bad), None, "{bad}");
    }
    assert_eq!(Target::new(0.999).unwrap().get(), 0.999);
}

#[test]
fn a_gap_between_checks_is_unknown_and_a_jump_back_counts_nothing() {
    let mut observer = Observer::default();
    let second = NOW * 60;
    assert_eq!(observer.record(second, Some(true)), 1);
    assert_eq!(observer.record(second + 3, Some(false)), 3, "a late check covers the seconds since");
    assert_eq!(observer.record(second + 3, Some(false)), 0);
    assert_eq!(observer.record(second + 30, Some(true)), 1, "the process was stopped");
    assert_eq!(observer.record(second + 10, Some(true)), 0, "the clock went back");
    assert_eq!(observer.record(second + 31, None), 0, "nothing to be said");
    assert_eq!(observer.pending(), [(NOW, 0b1111 | 1 << 30, 1 | 1 << 30)]);
    // What was stored is dropped, unless more came meanwhile.
    let (minute, seen, up) = observer.pending()[0];
    observer.record(second + 32, Some(true));
    observer.stored(minute, seen, up);
    assert_eq!(observer.pending().len(), 1);
    let (minute, seen, up) = observer.pending()[0];
    observer.stored(minute, seen, up);
    assert!(observer.pending().is_empty());
}

#[test]
fn each_objective_has_a_key_of_its_own_and_one_unit() {
    let share = Target::new(0.9).unwrap();
    let all = objectives(Targets { availability: share, latency: share, cap: share });
    let keys: std::collections::BTreeSet<_> = all.iter().map(Objective::key).collect();
    assert_eq!(keys.len(), all.len());
}

/// What a replica saw: from, to (seconds after the start), and whether it was up.
type Checks = Vec<(i64, i64, bool)>;

const SPAN: i64 = 1_800;

fn checks() -> impl Strategy<Value = Checks> {
    prop::collection::vec((0..SPAN, 1..400_i64, any::<bool>()), 0..6)
        .prop_map(|list| list.into_iter().map(|(from, length, up)| (from, (from + length).min(SPAN), up)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Two replicas, each restarted at some moment, their minutes merged in any order and twice: the
    /// same as a plain list of seconds, each of which is up if anybody saw it up.
    #[test]
    fn random_outages_come_to_what_a_list_of_seconds_says(
        a in checks(), b in checks(), restart in 0..SPAN, length in 1..40_i64, backwards in any::<bool>()
    ) {
        let start = NOW * 60;
        let mut model = vec![None::<bool>; SPAN as usize];
        let mut rows = Vec::new();
        for replica in [&a, &b] {
            for (from, to, up) in replica {
                let mut observer = Observer::default();
                for second in *from..*to {
                    if second == restart {
                        // Pending observations were stored; a new process continues.
                        rows.extend(std::mem::take(&mut observer).pending());
                    }
                    observer.record(start + second, Some(*up));
                    let known = &mut model[second as usize];
                    *known = Some(known.unwrap_or(false) || *up);
                }
                rows.extend(observer.pending());
            }
        }
        if backwards {
            rows.reverse();
        }
        let mut window = Window::new(Unit::Seconds);
        for (minute, seen, up) in rows.iter().chain(&rows) {
            window.merge(*minute, *seen, *up);
        }
        let now = NOW + SPAN / 60 - 1;
        let in_window = &model[(SPAN - length.min(SPAN / 60) * 60) as usize..];
        let expected = Tally {
            total: in_window.iter().flatten().count() as i64,
            good: in_window.iter().flatten().filter(|up| **up).count() as i64,
        };
        prop_assert_eq!(window.tally(now, length), expected);
        let objective = Objective { window_minutes: length, ..availability(0.9) };
        match judge(&objective, &window, now) {
            None => prop_assert_eq!(expected.total, 0),
            Some(found) => {
                let allowed = 0.1 * (length * 60) as f64;
                prop_assert!((found.consumed - expected.bad() as f64 / allowed).abs() < 1e-9);
                prop_assert_eq!(found.status == Status::Breached, expected.bad() as f64 >= allowed - 1e-6);
            }
        }
    }
}
