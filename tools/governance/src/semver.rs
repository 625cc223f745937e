//! Whether a version says what a change does: breaking needs a major, and a major needs something breaking.
//!
//! Before 1.0 the minor number takes the place of the major one, and the patch that of the minor, as Cargo reads them.
//! Build metadata is ignored, and so is what is behind the patch of a version by date, such as `2025.09.17+abc`.

use serde::Serialize;
use std::cmp::Ordering;

/// status/semver-validation.json.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Validation {
    /// What comes of it.
    pub status: Status,
    /// Now.
    pub current_version: String,
    /// Before.
    pub previous_version: String,
    /// Whether anything breaks.
    pub breaking: bool,
    /// What was found.
    pub messages: Vec<String>,
    /// What to do.
    pub recommendations: Vec<String>,
}

/// What comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The version fits.
    Ok,
    /// It says more than is so.
    Warn,
    /// It is wrong.
    Fail,
    /// There is no version to judge.
    Unknown,
}

impl Status {
    /// As in artifacts.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Unknown => "unknown",
        }
    }
}

/// Three numbers and a pre-release.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    numbers: [u64; 3],
    pre: Option<String>,
}

/// Reads `1.4.2`, `v1.4.2`, `1.4.2-rc.1+build` and `2025.09.17`.
fn parse(text: &str) -> Option<Version> {
    let bare = text.trim().trim_start_matches('v');
    let bare = bare.split_once('+').map_or(bare, |(version, _)| version);
    let (numbers, pre) = bare.split_once('-').map_or((bare, None), |(n, pre)| (n, Some(pre.to_owned())));
    let parts: Vec<u64> = numbers.split('.').map(|n| n.parse().ok()).collect::<Option<_>>()?;
    let numbers = parts.try_into().ok()?;
    if pre.as_deref() == Some("") { None } else { Some(Version { numbers, pre }) }
}

/// The order of SemVer 2.0: a pre-release is before its release, its parts are compared as numbers or texts.
fn order(a: &Version, b: &Version) -> Ordering {
    a.numbers.cmp(&b.numbers).then_with(|| match (&a.pre, &b.pre) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => {
            let parts = |text: &str| -> Vec<String> { text.split('.').map(str::to_owned).collect() };
            let (a, b) = (parts(a), parts(b));
            let part = |x: &String, y: &String| match (x.parse::<u64>(), y.parse::<u64>()) {
                (Ok(x), Ok(y)) => x.cmp(&y),
                (Ok(_), Err(_)) => Ordering::Less,
                (Err(_), Ok(_)) => Ordering::Greater,
                _ => x.cmp(y),
            };
            let first = a.iter().zip(&b).map(|(x, y)| part(x, y)).find(|o| o.is_ne());
            first.unwrap_or_else(|| a.len().cmp(&b.len()))
        }
    })
}

/// Which number of a version rose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bump {
    None,
    Patch,
    Minor,
    Major,
}

fn bump(old: &Version, new: &Version) -> Bump {
    let ([a, b, c], [x, y, z]) = (old.numbers, new.numbers);
    let is_young = a == 0;
    match () {
        () if x != a => Bump::Major,
        () if y != b => {
            if is_young {
                Bump::Major
            } else {
                Bump::Minor
            }
        }
        () if z != c => {
            if is_young {
                Bump::Minor
            } else {
                Bump::Patch
            }
        }
        // From a pre-release to another or to the release.
        () if old.pre != new.pre => Bump::Patch,
        () => Bump::None,
    }
}

/// Judges a version by the one before.
#[must_use]
pub fn validate(previous: &str, current: &str, breaking: bool) -> Validation {
    let mut validation = Validation {
        status: Status::Ok,
        current_version: current.to_owned(),
        previous_version: previous.to_owned(),
        breaking,
        messages: Vec::new(),
        recommendations: Vec::new(),
    };
    let mut judge = |status, message: String, recommendation: Option<String>| {
        validation.status = status;
        validation.messages.push(message);
        validation.recommendations.extend(recommendation);
    };
    let (old, new) = match (parse(previous), parse(current)) {
        (Some(old), Some(new)) => (old, new),
        (old, _) => {
            let wrong = if old.is_none() { previous } else { current };
            judge(Status::Unknown, format!("{wrong:?} is not a version of three numbers"), None);
            return validation;
        }
    };
    let next_major = match old.numbers {
        [0, minor, _] => format!("0.{}.0", minor + 1),
        [major, ..] => format!("{}.0.0", major + 1),
    };
    let [major, minor, patch] = old.numbers;
    let next_patch = format!("{major}.{minor}.{}", patch + 1);
    let becomes_stable = old.numbers[0] == 0 && new.numbers == [1, 0, 0];
    match (order(&new, &old), bump(&old, &new), breaking) {
        (Ordering::Less, ..) => {
            let next = if breaking { &next_major } else { &next_patch };
            judge(Status::Fail, format!("{current} is lower than {previous}"), Some(format!("use {next}")));
        }
        (_, Bump::Major, true) => judge(Status::Ok, "a breaking change has a major version".to_owned(), None),
        (_, _, true) => judge(
            Status::Fail,
            format!("{current} does not say that the change since {previous} is breaking"),
            Some(format!("use {next_major}, or make the change compatible")),
        ),
        (_, Bump::Major, false) if becomes_stable => {
            judge(Status::Warn, "1.0.0 declares the contract stable; nothing breaks".to_owned(), None);
        }
        (_, Bump::Major, false) => judge(
            Status::Fail,
            format!("{current} announces a breaking change, and there is none since {previous}"),
            Some(format!("use {next_patch}")),
        ),
        // Before 1.0, the last number is for everything that breaks nothing.
        (_, Bump::Minor, false) if old.numbers[0] > 0 => judge(
            Status::Warn,
            format!("{current} is a minor version, and nothing breaks; a patch may suffice"),
            Some(format!("{next_patch} would do if nothing was added")),
        ),
        (_, Bump::None, false) => judge(Status::Ok, "the version is the same, and nothing breaks".to_owned(), None),
        _ => judge(Status::Ok, "nothing breaks".to_owned(), None),
    }
    validation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_must_say_what_the_change_does() {
        use Status::{Fail, Ok, Unknown, Warn};
        for (previous, current, breaking, status, hint) in [
            ("1.4.2", "1.5.0", true, Fail, "2.0.0"),
            ("1.4.2", "1.4.3", true, Fail, "2.0.0"),
            ("1.4.2", "1.4.2", true, Fail, "2.0.0"),
            ("1.4.2", "2.0.0", true, Ok, ""),
            ("1.4.2", "2.0.0", false, Fail, "1.4.3"),
            ("1.4.2", "1.5.0", false, Warn, "1.4.3"),
            ("1.4.2", "1.4.3", false, Ok, ""),
            ("1.4.2", "1.4.2", false, Ok, ""),
            ("1.4.2", "1.4.1", false, Fail, "1.4.3"),
            ("1.4.2", "1.3.9", true, Fail, "2.0.0"),
            ("1.4.2", "1.4.2-rc.1", false, Fail, "1.4.3"),
            ("1.5.0-rc.9", "1.5.0-rc.10", false, Ok, ""),
            ("1.4.2+a", "1.4.2+b", false, Ok, ""),
            ("1.4.2+a", "1.4.2+b", true, Fail, "2.0.0"),
            ("2025.09.16+def5678", "2025.09.17+abc1234", false, Ok, ""),
            ("0.2.0", "0.3.0", true, Ok, ""),
            ("0.2.0", "0.2.1", true, Fail, "0.3.0"),
            ("0.2.0", "0.2.1", false, Ok, ""),
            ("0.2.0", "0.3.0", false, Fail, "0.2.1"),
            ("0.2.0", "1.0.0", false, Warn, ""),
            ("0.2.0", "1.0.0", true, Ok, ""),
            ("new", "1.0.0", true, Unknown, ""),
            ("1.0.0", "1.0", true, Unknown, ""),
        ] {
            let validation = validate(previous, current, breaking);
            let case = format!("{previous} to {current}, {breaking}: {validation:?}");
            assert_eq!(validation.status, status, "{case}");
            let hints = validation.recommendations.join(" ");
            assert!(if hint.is_empty() { hints.is_empty() } else { hints.contains(hint) }, "{case}");
        }
    }
}
