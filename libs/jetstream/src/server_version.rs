//! Which servers this runs on, and what is said of one outside of that. Pure.
//!
//! One older than the oldest is refused: it lacks required features. One newer than those tested is used and reported:
//! it may refuse what earlier ones accepted. One with published vulnerabilities is used and reported as well: to refuse
//! it would stop a fleet that ran until then.

use std::fmt;

/// The oldest that has what is needed: message schedules.
pub const OLDEST: ServerVersion = ServerVersion { major: 2, minor: 12, patch: 0 };
/// The first of the oldest series without the vulnerabilities that docs/deploy/upgrade-nats.md lists; later series never had
/// them in a release.
pub const REPAIRED: ServerVersion = ServerVersion { major: 2, minor: 12, patch: 7 };
/// The newest series that the tests run on.
pub const NEWEST_TRIED: (u32, u32) = (2, 15);

/// The first servers that take no reply and no deliver subject within JetStream's own subjects. With an earlier one, a
/// user who may have a stored message sent to a reply reaches every request of the API by it.
pub const REPLIES_APART: [ServerVersion; 2] =
    [ServerVersion { major: 2, minor: 14, patch: 10 }, ServerVersion { major: 2, minor: 15, patch: 3 }];

/// A server's version; what follows the three numbers is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerVersion {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
    /// The third number.
    pub patch: u32,
}

impl ServerVersion {
    /// Reads `2.14.0`, `v2.14.0` or `2.16.0-RC.1`.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = text.trim().trim_start_matches('v');
        let plain = plain.split(['-', '+']).next()?;
        let mut numbers = plain.split('.').map(|n| n.parse().ok());
        let (major, minor, patch) = (numbers.next()??, numbers.next()??, numbers.next()??);
        numbers.next().is_none().then_some(Self { major, minor, patch })
    }

    /// Whether replies reach no request of JetStream's API.
    pub fn keeps_replies_apart(self) -> bool {
        let [older, newer] = REPLIES_APART;
        self >= newer || (self >= older && (self.major, self.minor) == (older.major, older.minor))
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Whether a server of some version will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It is one of those that were tried, or does not say which it is.
    Tried,
    /// It is newer.
    Newer(ServerVersion),
    /// Strangers can crash it or get in, by what its project published.
    Vulnerable(ServerVersion),
    /// It lacks what is needed.
    TooOld(ServerVersion),
}

impl Support {
    /// From a version as a server reports it.
    pub fn of(version: &str) -> Self {
        match ServerVersion::parse(version) {
            Some(found) if found < OLDEST => Self::TooOld(found),
            Some(found) if found < REPAIRED => Self::Vulnerable(found),
            Some(found) if (found.major, found.minor) > NEWEST_TRIED => Self::Newer(found),
            _ => Self::Tried,
        }
    }

    /// Whether it may be used.
    pub fn is_usable(self) -> bool {
        !matches!(self, Self::TooOld(_))
    }
}

impl fmt::Display for Support {
    /// What is to be said of a connection to it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = NEWEST_TRIED;
        match self {
            Self::Tried => f.write_str("connected"),
            Self::Newer(found) => write!(
                f,
                "connected to nats-server {found}, which is newer than the newest that was tried, {major}.{minor}"
            ),
            Self::Vulnerable(found) => write!(
                f,
                "connected to nats-server {found}, which has published vulnerabilities: {REPAIRED} or newer has none of them"
            ),
            Self::TooOld(found) => {
                write!(f, "nats-server {found} is too old: {OLDEST} or newer is needed")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_kept_apart_from_the_first_server_of_each_series_on() {
        for (text, is_apart) in [
            ("2.12.9", false),
            ("2.14.9", false),
            ("2.14.10", true),
            ("2.15.0", false),
            ("2.15.2", false),
            ("2.15.3", true),
            ("2.16.0", true),
            ("3.0.0", true),
        ] {
            assert_eq!(ServerVersion::parse(text).unwrap().keeps_replies_apart(), is_apart, "{text}");
        }
    }

    #[test]
    fn versions_are_compared_as_numbers_and_what_is_none_is_taken() {
        let version = |major, minor, patch| ServerVersion { major, minor, patch };
        let cases = [
            ("2.12.0", Support::Vulnerable(version(2, 12, 0)), true, "published vulnerabilities: 2.12.7 or newer"),
            ("2.12.6", Support::Vulnerable(version(2, 12, 6)), true, "connected to nats-server 2.12.6"),
            ("2.12.7", Support::Tried, true, "connected"),
            ("2.15.99", Support::Tried, true, "connected"),
            ("v2.14.9-fips", Support::Tried, true, "connected"),
            ("", Support::Tried, true, "connected"),
            ("dev", Support::Tried, true, "connected"),
            ("2.9.25", Support::TooOld(version(2, 9, 25)), false, "nats-server 2.9.25 is too old"),
            ("2.11.11", Support::TooOld(version(2, 11, 11)), false, "2.12.0 or newer is needed"),
            ("2.16.0-RC.1", Support::Newer(version(2, 16, 0)), true, "connected to nats-server 2.16.0, which is newer"),
            ("3.0.0", Support::Newer(version(3, 0, 0)), true, "2.15"),
        ];
        for (text, support, usable, words) in cases {
            let found = Support::of(text);
            assert_eq!((found, found.is_usable()), (support, usable), "{text}");
            assert!(found.to_string().contains(words), "{found}");
        }
    }
}
