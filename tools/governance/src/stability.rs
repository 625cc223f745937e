//! The history of runs and what it says: how often the contract changed without breaking.
//!
//! Every run adds one line, also one that fails, and one that could not compare anything (a placeholder). The ratios are
//! counted only from the lines, so the same history gives the same numbers.

use crate::{artifact::read, exit::broken, semver::Status};
use agentforge_terminal::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fmt, path::Path};

/// What a run came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Nothing broke.
    Stable,
    /// Something broke.
    Breaking,
    /// Nothing could be compared.
    Placeholder,
}

/// What is wrong, until it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// The version does not say what the change does.
    SemverFail,
    /// The ratio of the window is below its threshold.
    StabilityDrop,
    /// Too many runs in a row compared nothing.
    PlaceholderStreak,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl Condition {
    /// While it holds.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::SemverFail => "semver_fail",
            Self::StabilityDrop => "stability_drop",
            Self::PlaceholderStreak => "placeholder_streak",
        }
    }

    /// When it does not hold anymore.
    #[must_use]
    pub fn recovery(self) -> &'static str {
        match self {
            Self::SemverFail => "semver_recovered",
            Self::StabilityDrop => "stability_recovered",
            Self::PlaceholderStreak => "placeholder_recovered",
        }
    }
}

/// One line of status/stability-history.jsonl.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Of this format.
    pub schema_version: u32,
    /// When, RFC 3339.
    pub at: String,
    /// The commit.
    pub sha: String,
    /// What the run came to.
    pub outcome: Outcome,
    /// Breaking changes that were not announced.
    pub breaking: usize,
    /// Operations that are new.
    pub added: usize,
    /// Operations that are gone.
    pub removed: usize,
    /// What the version says.
    pub semver: Status,
    /// What the receiver of notices knows to be wrong.
    pub told: BTreeSet<Condition>,
}

impl Run {
    /// 1 for a stable run, 0 for another.
    #[must_use]
    pub fn score(&self) -> f64 {
        if self.outcome == Outcome::Stable { 1.0 } else { 0.0 }
    }
}

/// The runs of a history, the oldest first; none when there is no file yet.
///
/// A torn last line, of a writer that was killed, is left out.
///
/// # Errors
/// Broken input: another line that is not a run.
pub fn history(path: &Path) -> Result<Vec<Run>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = read(path)?;
    let mut runs = Vec::new();
    let mut lines = text.split_inclusive('\n').enumerate().peekable();
    while let Some((n, line)) = lines.next() {
        match serde_json::from_str(line) {
            Ok(run) => runs.push(run),
            Err(_) if line.trim().is_empty() => {}
            Err(_) if lines.peek().is_none() && !line.ends_with('\n') => {}
            Err(e) => return Err(broken(path, n + 1, e)),
        }
    }
    Ok(runs)
}

/// The text of a history.
#[must_use]
pub fn lines(runs: &[Run]) -> String {
    runs.iter().map(|run| crate::artifact::canonical(run) + "\n").collect()
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metrics {
    /// Stable runs of the window, 0 to 1; 0 without runs.
    pub window_stability_ratio: f64,
    /// Runs that the window may have.
    pub window_size: usize,
    /// Stable runs in it.
    pub window_stable_count: usize,
    /// Runs in it.
    pub window_total_count: usize,
    /// Stable runs in a row, up to now.
    pub current_stable_streak: usize,
    /// The most stable runs in a row.
    pub longest_stable_streak: usize,
    /// Stable runs of all, 0 to 1.
    pub overall_stability_ratio: f64,
    /// The mean of the scores in the window.
    pub window_mean_score: f64,
    /// Whether the last run compared nothing, or there was none.
    pub placeholder: bool,
    /// Such runs in a row, up to now.
    pub placeholder_streak: usize,
}

impl Metrics {
    /// Counts a history.
    #[must_use]
    pub fn of(runs: &[Run], window_size: usize) -> Self {
        let is_stable = |run: &&Run| run.outcome == Outcome::Stable;
        let window = &runs[runs.len().saturating_sub(window_size)..];
        let stable = window.iter().filter(is_stable).count();
        let placeholder = |run: &&Run| run.outcome == Outcome::Placeholder;
        Self {
            window_stability_ratio: share(stable, window.len()),
            window_size,
            window_stable_count: stable,
            window_total_count: window.len(),
            current_stable_streak: runs.iter().rev().take_while(is_stable).count(),
            longest_stable_streak: longest(runs),
            overall_stability_ratio: share(runs.iter().filter(is_stable).count(), runs.len()),
            window_mean_score: mean(window),
            placeholder: runs.last().is_none_or(|run| run.outcome == Outcome::Placeholder),
            placeholder_streak: runs.iter().rev().take_while(placeholder).count(),
        }
    }

    /// status/stability-metrics.json.
    #[must_use]
    pub fn document(&self) -> Value {
        json!({
            "schema_version": 1,
            "window_stability_ratio": self.window_stability_ratio,
            "window_size": self.window_size,
            "window_stable_count": self.window_stable_count,
            "window_total_count": self.window_total_count,
            "current_stable_streak": self.current_stable_streak,
            "longest_stable_streak": self.longest_stable_streak,
            "overall_stability_ratio": self.overall_stability_ratio,
            "window_mean_score": self.window_mean_score,
            "placeholder": self.placeholder,
            "extensions": {"placeholder_streak": self.placeholder_streak},
        })
    }
}

fn share(part: usize, of: usize) -> f64 {
    if of == 0 { 0.0 } else { part as f64 / of as f64 }
}

fn mean(window: &[Run]) -> f64 {
    if window.is_empty() { 0.0 } else { window.iter().map(Run::score).sum::<f64>() / window.len() as f64 }
}

fn longest(runs: &[Run]) -> usize {
    runs.split(|run| run.outcome != Outcome::Stable).map(<[Run]>::len).max().unwrap_or(0)
}

/// When a run is wrong; 0 turns a limit on placeholders off.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The ratio of the window must not be below it.
    pub stability: f64,
    /// Placeholders in a row that are reported.
    pub streak_alert: usize,
    /// Placeholders in a row that are allowed; one more fails.
    pub streak_max: usize,
}

/// What is wrong after the newest run.
#[must_use]
pub fn conditions(metrics: &Metrics, semver: Status, limits: &Limits) -> BTreeSet<Condition> {
    let streak = limits.streak_alert > 0 && metrics.placeholder_streak >= limits.streak_alert;
    [
        (semver == Status::Fail, Condition::SemverFail),
        (metrics.window_stability_ratio < limits.stability, Condition::StabilityDrop),
        (streak, Condition::PlaceholderStreak),
    ]
    .into_iter()
    .filter_map(|(holds, condition)| holds.then_some(condition))
    .collect()
}

/// What is to be reported: what is wrong now, and once what the receiver knows to be wrong and is not anymore. With it, what
/// the receiver knows afterwards.
///
/// A run without a version proves nothing about versions: what was wrong with them still is.
#[must_use]
pub fn reasons(
    told: &BTreeSet<Condition>,
    now: &BTreeSet<Condition>,
    semver: Status,
) -> (Vec<&'static str>, BTreeSet<Condition>) {
    let is_open = |condition: &Condition| semver == Status::Unknown && *condition == Condition::SemverFail;
    let recovered = told.difference(now).filter(|condition| !is_open(condition));
    let failing = now.iter().map(|condition| condition.reason());
    let reasons = failing.chain(recovered.map(|condition| condition.recovery())).collect();
    (reasons, told.iter().filter(|condition| is_open(condition)).chain(now).copied().collect())
}

/// The color of the badge of a streak of placeholders.
#[must_use]
pub fn streak_color(streak: usize) -> &'static str {
    match streak {
        0 => "brightgreen",
        1..=2 => "green",
        3..=4 => "yellow",
        _ => "red",
    }
}

/// The color of the badge of a ratio.
#[must_use]
pub fn ratio_color(ratio: f64) -> &'static str {
    match ratio {
        r if r >= 0.95 => "brightgreen",
        r if r >= 0.9 => "green",
        r if r >= 0.75 => "yellow",
        r if r >= 0.5 => "orange",
        _ => "red",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(outcome: Outcome) -> Run {
        let (sha, at) = ("abc1234".to_owned(), "2026-01-01T00:00:00Z".to_owned());
        Run {
            schema_version: 1,
            at,
            sha,
            outcome,
            breaking: 0,
            added: 0,
            removed: 0,
            semver: Status::Ok,
            told: BTreeSet::new(),
        }
    }

    fn of(text: &str) -> Vec<Run> {
        let one = |c| {
            run(match c {
                's' => Outcome::Stable,
                'b' => Outcome::Breaking,
                _ => Outcome::Placeholder,
            })
        };
        text.chars().map(one).collect()
    }

    #[test]
    fn breaking_runs_and_placeholders_lower_the_ratio() {
        for (history, ratio, current, longest, streak) in [
            ("", 0.0, 0, 0, 0),
            ("s", 1.0, 1, 1, 0),
            ("p", 0.0, 0, 0, 1),
            ("ssssssssssssssssssssssssssbsbbs", 0.9, 1, 26, 0),
            ("bsssssssss", 0.9, 9, 9, 0),
            ("sssssssssp", 0.9, 0, 9, 1),
            ("ssbsspp", 4.0 / 7.0, 0, 2, 2),
        ] {
            let m = Metrics::of(&of(history), 30);
            assert_eq!(m.window_stability_ratio, ratio, "{history}");
            assert_eq!((m.current_stable_streak, m.longest_stable_streak), (current, longest), "{history}");
            assert_eq!((m.placeholder_streak, m.window_mean_score), (streak, ratio), "{history}");
        }
        let many = Metrics::of(&of(&("b".repeat(40) + &"s".repeat(27) + "bbb")), 30);
        assert_eq!((many.window_stability_ratio, many.window_stable_count, many.window_total_count), (0.9, 27, 30));
        assert_eq!(many.overall_stability_ratio, 27.0 / 70.0);
    }

    #[test]
    fn a_recovery_is_told_once_and_a_failure_while_it_lasts() {
        use Condition::{PlaceholderStreak as P, SemverFail as S, StabilityDrop as D};
        use Status::{Ok, Unknown};
        for (told, now, semver, expected, after) in [
            (&[][..], &[][..], Ok, &[][..], &[][..]),
            (&[], &[S], Status::Fail, &["semver_fail"], &[S]),
            (&[S], &[S], Status::Fail, &["semver_fail"], &[S]),
            (&[S], &[], Ok, &["semver_recovered"], &[]),
            (&[S], &[], Unknown, &[], &[S]),
            (&[D, P], &[S], Status::Fail, &["semver_fail", "stability_recovered", "placeholder_recovered"], &[S]),
        ] {
            let set = |of: &[Condition]| of.iter().copied().collect::<BTreeSet<_>>();
            let (said, known) = reasons(&set(told), &set(now), semver);
            assert_eq!((said.as_slice(), known), (expected, set(after)), "{told:?} then {now:?}");
        }
    }

    #[test]
    fn a_torn_last_line_is_left_out_and_another_broken_one_is_named() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("h.jsonl");
        assert!(history(&path).unwrap().is_empty());
        let whole = lines(&of("sb"));
        std::fs::write(&path, format!("{whole}{{\"schema_ver")).unwrap();
        assert_eq!(history(&path).unwrap(), of("sb"));
        std::fs::write(&path, format!("nonsense\n{whole}")).unwrap();
        assert!(history(&path).unwrap_err().message.contains("h.jsonl:1: "));
    }
}
