//! Which client errors an endpoint wants to be tried again. Pure.

use agentforge_config::Parse;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt};

/// Which client errors are retried by the schedule, in addition to 408, 425 and 429, which always are. 410 never is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum Retry4xx {
    /// All, or none: the endpoint rejects the event, and would reject it again.
    All(bool),
    /// Only these statuses.
    These(BTreeSet<u16>),
}

impl Retry4xx {
    /// None of them.
    pub const NONE: Self = Self::All(false);

    /// Whether this status is tried again.
    pub fn takes(&self, status: u16) -> bool {
        match self {
            Self::All(all) => *all,
            Self::These(these) => these.contains(&status),
        }
    }

    /// What is wrong with it.
    pub fn problem(&self) -> Option<&'static str> {
        match self {
            Self::These(these) if these.iter().any(|s| !(400..=499).contains(s) || *s == 410) => {
                Some("is neither true, false, nor a list of statuses from 400 to 499 without 410")
            }
            _ => None,
        }
    }
}

impl fmt::Display for Retry4xx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(false) => f.write_str("off"),
            Self::All(true) => f.write_str("on"),
            Self::These(these) => {
                let words: Vec<String> = these.iter().map(u16::to_string).collect();
                f.write_str(&words.join(","))
            }
        }
    }
}

impl Parse for Retry4xx {
    fn parse(s: &str) -> Result<Self, String> {
        let wrong = || "is neither on, off, nor statuses from 400 to 499 without 410, with commas".to_owned();
        let all = match s.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Some(true),
            "0" | "false" | "no" | "off" => Some(false),
            _ => None,
        };
        if let Some(all) = all {
            return Ok(Self::All(all));
        }
        let these = s.split(',').map(|s| s.trim().parse::<u16>()).collect::<Result<_, _>>().map_err(|_| wrong())?;
        Some(Self::These(these)).filter(|these| these.problem().is_none()).ok_or_else(wrong)
    }
    fn placeholder() -> Self {
        Self::NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_errors_to_try_again_are_a_word_or_a_list() {
        for (text, expected) in [
            ("on", Some("on")),
            ("off", Some("off")),
            ("404, 401", Some("401,404")),
            ("410", None),
            ("500", None),
            ("4xx", None),
            ("", None),
        ] {
            assert_eq!(Retry4xx::parse(text).ok().map(|r| r.to_string()).as_deref(), expected, "{text}");
        }
    }
}
