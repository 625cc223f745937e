//! What an attempt's end means for the message and for the endpoint. Pure.

use agentforge_egress::{CallError, DialError, TargetError};
use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use jiff::Timestamp;
use std::time::Duration;

/// A wish for a later try is granted up to this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// How an attempt ended.
#[derive(Debug)]
pub enum Ended {
    /// An answer came, whole.
    Answered {
        /// Its status.
        status: StatusCode,
        /// What it says about the next try.
        retry_after: Option<Duration>,
    },
    /// No connection.
    Dial(DialError),
    /// The connection broke.
    Call(CallError),
    /// No whole answer in time.
    TimedOut,
    /// The URL may never be called.
    Target(TargetError),
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Done.
    Delivered,
    /// Again by the schedule, and not before `after`.
    Retry {
        /// The endpoint's wish.
        after: Option<Duration>,
    },
    /// Never again: a dead letter.
    Dead,
    /// Never again, and the endpoint takes nothing more.
    Disable,
}

impl Ended {
    /// What follows from it.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Answered { status, retry_after } => match status.as_u16() {
                200..=299 => Verdict::Delivered,
                410 => Verdict::Disable,
                429 | 503 => Verdict::Retry { after: *retry_after },
                408 | 425 => Verdict::Retry { after: None },
                400..=499 => Verdict::Dead,
                // Redirects are not followed; they may be put right, as all else may.
                _ => Verdict::Retry { after: None },
            },
            Self::Target(_) => Verdict::Dead,
            // A name that leads inside today may be put right, so that the event is not lost to a wrong entry.
            Self::Dial(_) | Self::Call(_) | Self::TimedOut => Verdict::Retry { after: None },
        }
    }

    /// Whether it speaks for the endpoint's health: one that refuses a message works.
    pub fn is_failure(&self) -> bool {
        matches!(self.verdict(), Verdict::Retry { .. })
    }

    /// The status, where there is one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Answered { status, .. } => Some(status.as_u16()),
            _ => None,
        }
    }

    /// A stable short name of what went wrong, for labels.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Answered { status, .. } => match status.as_u16() {
                200..=299 => "delivered",
                300..=399 => "redirect",
                410 => "gone",
                429 => "too_many_requests",
                400..=499 => "client_error",
                503 => "service_unavailable",
                500..=599 => "server_error",
                _ => "status",
            },
            Self::Dial(error) => error.code(),
            Self::Call(_) => "reset",
            Self::TimedOut => "timeout",
            Self::Target(TargetError::Refused(_)) => "egress_refused",
            Self::Target(TargetError::Unusable) => "bad_url",
        }
    }

    /// For people; names the host at most, never the URL.
    pub fn detail(&self) -> String {
        match self {
            Self::Answered { status, .. } if status.is_redirection() => {
                format!("answered {status}; redirects are not followed")
            }
            Self::Answered { status, .. } => format!("answered {status}"),
            Self::Dial(error) => chain(error),
            Self::Call(error) => chain(error),
            Self::TimedOut => "no whole answer in time".to_owned(),
            Self::Target(error) => error.to_string(),
        }
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// `Retry-After` in seconds or as a date, at most a day.
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
            Duration::try_from(at.duration_since(now)).unwrap_or_default()
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentforge_egress::Refusal;

    fn answered(status: u16) -> Ended {
        Ended::Answered { status: StatusCode::from_u16(status).unwrap(), retry_after: Some(Duration::from_secs(7)) }
    }

    #[test]
    fn every_status_has_its_outcome() {
        let again = || Verdict::Retry { after: None };
        let later = || Verdict::Retry { after: Some(Duration::from_secs(7)) };
        #[rustfmt::skip] // a table
        let cases = [
            (200, Verdict::Delivered), (201, Verdict::Delivered), (204, Verdict::Delivered), (299, Verdict::Delivered),
            (301, again()), (302, again()), (304, again()), (307, again()), (308, again()),
            (400, Verdict::Dead), (401, Verdict::Dead), (403, Verdict::Dead), (404, Verdict::Dead), (409, Verdict::Dead),
            (413, Verdict::Dead), (422, Verdict::Dead), (499, Verdict::Dead),
            (408, again()), (425, again()), (410, Verdict::Disable), (429, later()), (503, later()),
            (500, again()), (501, again()), (502, again()), (504, again()), (599, again()), (600, again()),
        ];
        for (status, expected) in cases {
            let ended = answered(status);
            assert_eq!(ended.verdict(), expected, "{status}");
            assert_eq!(ended.is_failure(), matches!(expected, Verdict::Retry { .. }), "{status}");
        }
    }

    #[test]
    fn network_errors_are_tried_again_and_forbidden_urls_are_not() {
        let refusal = || Refusal::PlainHttp("a.example".into());
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let again = Verdict::Retry { after: None };
        for (ended, verdict, reason) in [
            (Ended::TimedOut, again.clone(), "timeout"),
            (Ended::Dial(DialError::Connect(refused)), again.clone(), "connect"),
            (Ended::Dial(DialError::Refused(refusal())), again, "egress_refused"),
            (Ended::Target(TargetError::Refused(refusal())), Verdict::Dead, "egress_refused"),
            (Ended::Target(TargetError::Unusable), Verdict::Dead, "bad_url"),
        ] {
            assert_eq!((ended.verdict(), ended.reason()), (verdict, reason), "{ended:?}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("120", Some(120)),
            ("0", Some(0)),
            ("999999999", Some(86_400)),
            ("Thu, 01 Jan 2026 00:01:00 GMT", Some(60)),
            ("Wed, 31 Dec 2025 00:00:00 GMT", Some(0)),
            ("soon", None),
            ("-5", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            assert_eq!(retry_after(&headers, now), expected.map(Duration::from_secs), "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
