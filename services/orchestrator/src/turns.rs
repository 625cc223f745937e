//! Which turns of a schedule are taken: what becomes of those that were missed, of those that come while an
//! earlier one is not over, and of those that come too late. Pure.

use crate::cron::Clockwork;
use agentforge_message_id::ScheduleId;
use agentforge_proto::time::Micros;
use std::collections::VecDeque;
use std::time::Duration;

/// Missed turns that [`CatchUp::All`] makes up for; older ones are skipped.
pub const CATCH_UP_MAX: usize = 100;

/// A turn that is taken later than this was missed. Longer than a gap without orchestrators during a rolling update.
pub const MISSED_AFTER: Duration = Duration::from_secs(60);

/// How far the clocks of two orchestrators on one database may differ: more than time synchronisation leaves, less than
/// a wrong clock that is corrected.
pub const SKEW_MAX: Duration = Duration::from_secs(60);

/// Missed turns that are counted one by one: a week of minutes. Beyond it only the newest are looked for.
const COUNTED_MAX: usize = 10_080;

/// What becomes of a turn while the job of an earlier turn is not over. Stored as numbers; never renumber.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlap {
    /// It is taken all the same.
    #[default]
    Allow = 0,
    /// It is skipped.
    Skip = 1,
    /// It waits for the earlier one's end. One turn waits at most; others are skipped meanwhile.
    Queue = 2,
    /// The earlier job is cancelled, then it is taken.
    Replace = 3,
}

/// What happens to turns missed while no orchestrator ran. Stored as numbers; never renumber.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CatchUp {
    /// The latest of them is taken.
    #[default]
    Latest = 0,
    /// All are taken in order, the latest [`CATCH_UP_MAX`] at most.
    All = 1,
    /// None is taken that is older than [`MISSED_AFTER`].
    None = 2,
}

macro_rules! words {
    ($kind:ident: $($variant:ident $word:literal),+) => {
        impl $kind {
            /// All of them.
            pub const ALL_OF_THEM: &'static [Self] = &[$(Self::$variant),+];

            /// The word used in JSON and by the command.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// The one with this word.
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL_OF_THEM.iter().copied().find(|kind| kind.as_str() == word)
            }

            /// The one with this stored number.
            pub fn from_number(number: i16) -> Option<Self> {
                Self::ALL_OF_THEM.iter().copied().find(|kind| *kind as i16 == number)
            }
        }
    };
}
words!(Overlap: Allow "allow", Skip "skip", Queue "queue", Replace "replace");
words!(CatchUp: Latest "latest", All "all", None "none");

/// Why a turn was skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// An earlier turn was not over.
    Overlap,
    /// No orchestrator took it in time.
    Missed,
    /// Its deadline had passed.
    TooLate,
    /// Its job is not accepted any more.
    Refused,
}

impl SkipReason {
    /// The word used in JSON and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Overlap => "overlap",
            Self::Missed => "missed",
            Self::TooLate => "too_late",
            Self::Refused => "refused",
        }
    }
}

/// Turns that are skipped, for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    /// The latest of them.
    pub turn: Micros,
    /// How many; of very many, those that were counted.
    pub count: u32,
    /// The word that metrics and callers have for it.
    pub reason: SkipReason,
    /// The same for people.
    pub detail: String,
}

impl Skip {
    /// A skip that stands for this turn only: its count is 1.
    pub fn one(turn: Micros, reason: SkipReason, detail: impl Into<String>) -> Self {
        Self { turn, count: 1, reason, detail: detail.into() }
    }
}

/// What is done about the turns that are due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The turn to take now.
    pub turn: Option<Micros>,
    /// The turn after it; it may be due as well.
    pub next: Option<Micros>,
    /// What is skipped.
    pub skipped: Vec<Skip>,
}

/// Decides about `due`, the first turn that was not taken, and those after it until `now`.
pub fn plan(clock: &Clockwork, catch_up: CatchUp, deadline: Option<Duration>, due: Micros, now: Micros) -> Plan {
    let keep = if catch_up == CatchUp::All { CATCH_UP_MAX } else { 1 };
    let (mut older, mut kept) = missed(clock, due, now, keep);
    let mut skipped = vec![];
    if catch_up == CatchUp::None
        && let Some(turn) = kept.pop_back_if(|turn| now.since(*turn) > MISSED_AFTER)
    {
        older = Some(Older { last: turn, count: older.map_or(0, |o| o.count) + 1 });
    }
    if let Some(Older { last, count }) = older {
        let detail = format!("no orchestrator took it in time, and catch_up is {}", catch_up.as_str());
        skipped.push(Skip { turn: last, count, reason: SkipReason::Missed, detail });
    }
    let mut late = 0;
    let mut last = None;
    while let Some(turn) = kept.pop_front_if(|turn| is_too_late(*turn, deadline, now)) {
        (late, last) = (late + 1, Some(turn));
    }
    if let Some(turn) = last {
        let detail = format!("its deadline had passed at {}", now.timestamp());
        skipped.push(Skip { turn, count: late, reason: SkipReason::TooLate, detail });
    }
    let turn = kept.pop_front();
    Plan { turn, next: kept.pop_front().or_else(|| clock.after(now)), skipped }
}

/// The clock was set back: the turn to continue with, where turns lie between `now` and the one that is `planned`.
/// Turns within [`SKEW_MAX`] were taken by an orchestrator whose clock is a little ahead, and do not occur again.
pub fn rewound(clock: &Clockwork, planned: Micros, now: Micros) -> Option<Micros> {
    let again = clock.after(now.plus(SKEW_MAX)).filter(|turn| *turn < planned);
    again.and_then(|_| clock.after(now))
}

/// What makes a turn's job one job. A turn that comes a second time has another key; so has one that waited, which
/// may stand for the same time as one that the clock shows again.
pub fn key(schedule: ScheduleId, turn: Micros, rewinds: i64, waited: bool) -> String {
    let key = format!("schedule:{schedule}:{}", turn.0);
    match (rewinds, waited) {
        (0, _) => key,
        (n, false) => format!("{key}:{n}"),
        (n, true) => format!("{key}:{n}w"),
    }
}

/// Whether a turn's job would begin after it must have ended.
pub fn is_too_late(turn: Micros, deadline: Option<Duration>, now: Micros) -> bool {
    deadline.is_some_and(|deadline| turn.plus(deadline) <= now)
}

/// Turns that are not among those that are kept.
#[derive(Clone, Copy)]
struct Older {
    last: Micros,
    count: u32,
}

/// The latest `keep` turns from `due` to `now`, oldest first, and what came before them.
fn missed(clock: &Clockwork, due: Micros, now: Micros, keep: usize) -> (Option<Older>, VecDeque<Micros>) {
    let mut kept = VecDeque::from([due]);
    let mut older: Option<Older> = None;
    for (count, turn) in (1..).zip(clock.runs(due).take_while(|turn| *turn <= now)) {
        if count == COUNTED_MAX {
            // Very many: those between are left out of the count.
            kept = latest(clock, turn, now, keep);
            break;
        }
        kept.push_back(turn);
        if kept.len() > keep
            && let Some(last) = kept.pop_front()
        {
            older = Some(Older { last, count: older.map_or(0, |o| o.count) + 1 });
        }
    }
    (older, kept)
}

/// The latest `keep` turns from `first` to `now`, looked for from the end.
fn latest(clock: &Clockwork, first: Micros, now: Micros, keep: usize) -> VecDeque<Micros> {
    let mut back = Duration::from_secs(3600);
    loop {
        let from = Micros(now.0.saturating_sub(i64::try_from(back.as_micros()).unwrap_or(i64::MAX))).max(first);
        let mut found = VecDeque::new();
        for turn in clock.runs(from).take_while(|turn| *turn <= now) {
            found.push_back(turn);
            if found.len() > keep {
                found.pop_front();
            }
        }
        if found.len() >= keep || from == first {
            return found;
        }
        back = back.saturating_mul(4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn at(text: &str) -> Micros {
        text.parse::<Timestamp>().unwrap().into()
    }

    fn hourly(catch_up: CatchUp, deadline: Option<Duration>, now: &str) -> Plan {
        let clock = Clockwork::new("0 * * * *", "UTC").unwrap();
        plan(&clock, catch_up, deadline, at("2027-01-01T03:00:00Z"), at(now))
    }

    fn hour(h: u32) -> Micros {
        at(&format!("2027-01-01T{h:02}:00:00Z"))
    }

    fn skips(plan: &Plan) -> Vec<(&'static str, u32, Micros)> {
        plan.skipped.iter().map(|s| (s.reason.as_str(), s.count, s.turn)).collect()
    }

    #[test]
    fn a_turn_on_time_is_taken_whatever_the_policy() {
        for policy in CatchUp::ALL_OF_THEM {
            let plan = hourly(*policy, None, "2027-01-01T03:00:00.400Z");
            assert_eq!(plan, Plan { turn: Some(hour(3)), next: Some(hour(4)), skipped: vec![] }, "{policy:?}");
        }
    }

    #[test]
    fn missed_turns_are_made_up_for_by_the_policy() {
        let now = "2027-01-01T06:30:00Z";
        let latest = hourly(CatchUp::Latest, None, now);
        assert_eq!((latest.turn, latest.next), (Some(hour(6)), Some(hour(7))));
        assert_eq!(skips(&latest), [("missed", 3, hour(5))]);
        let all = hourly(CatchUp::All, None, now);
        assert_eq!((all.turn, all.next), (Some(hour(3)), Some(hour(4))));
        assert_eq!(skips(&all), []);
        let none = hourly(CatchUp::None, None, now);
        assert_eq!((none.turn, none.next), (None, Some(hour(7))));
        assert_eq!(skips(&none), [("missed", 4, hour(6))]);
        // The newest is not missed yet.
        let none = hourly(CatchUp::None, None, "2027-01-01T06:00:59Z");
        assert_eq!((none.turn, none.next), (Some(hour(6)), Some(hour(7))));
        assert_eq!(skips(&none), [("missed", 3, hour(5))]);
    }

    #[test]
    fn all_has_a_bound_and_what_is_older_is_told() {
        let clock = Clockwork::new("* * * * *", "UTC").unwrap();
        let (due, now) = (at("2027-01-01T00:00:00Z"), at("2027-01-01T10:00:00Z"));
        let made = plan(&clock, CatchUp::All, None, due, now);
        assert_eq!((made.turn, made.next), (Some(at("2027-01-01T08:21:00Z")), Some(at("2027-01-01T08:22:00Z"))));
        assert_eq!(skips(&made), [("missed", 501, at("2027-01-01T08:20:00Z"))]);
    }

    #[test]
    fn an_outage_of_years_is_planned_at_once() {
        let clock = Clockwork::new("* * * * *", "Europe/Vienna").unwrap();
        let (due, now) = (at("2017-01-01T00:00:00Z"), at("2027-01-01T10:00:00Z"));
        let began = std::time::Instant::now();
        let latest = plan(&clock, CatchUp::Latest, None, due, now);
        assert_eq!((latest.turn, latest.next), (Some(now), Some(at("2027-01-01T10:01:00Z"))));
        let all = plan(&clock, CatchUp::All, None, due, now);
        assert_eq!((all.turn, all.skipped.len()), (Some(at("2027-01-01T08:21:00Z")), 1));
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }

    #[test]
    fn what_is_past_its_deadline_is_not_begun() {
        let deadline = Some(Duration::from_secs(2 * 3600));
        let plan = hourly(CatchUp::All, deadline, "2027-01-01T06:30:00Z");
        assert_eq!((plan.turn, plan.next), (Some(hour(5)), Some(hour(6))));
        assert_eq!(skips(&plan), [("too_late", 2, hour(4))]);
        let plan = hourly(CatchUp::Latest, Some(Duration::from_secs(60)), "2027-01-01T06:30:00Z");
        assert_eq!((plan.turn, plan.next), (None, Some(hour(7))));
        assert_eq!(skips(&plan), [("missed", 3, hour(5)), ("too_late", 1, hour(6))]);
    }

    #[test]
    fn only_a_clock_that_was_set_back_for_longer_than_skew_brings_turns_again() {
        let clock = Clockwork::new("* * * * *", "UTC").unwrap();
        let (planned, taken) = (at("2027-01-01T12:01:00Z"), at("2027-01-01T12:00:00Z"));
        // The one that took the turn was ahead by up to a minute, or this clock is.
        for skew in [0, 1, 5, 30, 60] {
            assert_eq!(rewound(&clock, planned, taken.minus(Duration::from_secs(skew))), None, "{skew} s behind");
            assert_eq!(rewound(&clock, planned, taken.plus(Duration::from_secs(skew))), None, "{skew} s ahead");
        }
        assert_eq!(rewound(&clock, planned, at("2027-01-01T11:00:30Z")), Some(at("2027-01-01T11:01:00Z")));
        // A turn of each day: the one of today was taken, and the clock shows its time again.
        let clock = Clockwork::new("0 12 * * *", "UTC").unwrap();
        let tomorrow = at("2027-01-02T12:00:00Z");
        assert_eq!(rewound(&clock, tomorrow, at("2027-01-01T12:30:00Z")), None);
        assert_eq!(rewound(&clock, tomorrow, at("2027-01-01T11:59:55Z")), None);
        assert_eq!(rewound(&clock, tomorrow, at("2027-01-01T11:30:00Z")), Some(taken));
        // What is due, or follows next in any case, stays.
        assert_eq!(rewound(&clock, taken, at("2027-01-01T12:30:00Z")), None);
        assert_eq!(rewound(&clock, taken, at("2027-01-01T11:30:00Z")), None);
    }

    #[test]
    fn a_turn_that_comes_again_has_a_key_of_its_own() {
        let s = ScheduleId::generate();
        assert_eq!(key(s, Micros(7), 0, false), format!("schedule:{s}:7"));
        assert_eq!(key(s, Micros(7), 0, true), key(s, Micros(7), 0, false), "as versions before made it");
        let again: std::collections::BTreeSet<_> =
            [(0, false), (1, false), (1, true), (2, false), (2, true)].map(|(n, w)| key(s, Micros(7), n, w)).into();
        assert_eq!(again.len(), 5);
    }

    #[test]
    fn words_and_numbers_round_trip() {
        for o in Overlap::ALL_OF_THEM {
            assert_eq!((Overlap::from_word(o.as_str()), Overlap::from_number(*o as i16)), (Some(*o), Some(*o)));
        }
        for c in CatchUp::ALL_OF_THEM {
            assert_eq!((CatchUp::from_word(c.as_str()), CatchUp::from_number(*c as i16)), (Some(*c), Some(*c)));
        }
        assert_eq!((Overlap::from_word("never"), CatchUp::from_number(9)), (None, None));
    }
}
