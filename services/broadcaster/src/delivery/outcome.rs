//! What an attempt's end means for the message and for the endpoint. Pure.

use crate::endpoints::retry_4xx::Retry4xx;
use crate::error::chain;
use agentforge_egress::{CallError, DialError, TargetError};
use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use jiff::Timestamp;
use std::time::Duration;

/// How an attempt ended.
#[derive(Debug)]
pub enum AttemptEnd {
    /// An answer came, whole.
    Answered {
        status: StatusCode,
        /// What it says about the next try.
        retry_after: Option<Duration>,
    },
    /// There was no connection to send the request on.
    Dial(DialError),
    /// The connection broke.
    Call(CallError),
    /// No whole answer in time.
    TimedOut,
    /// The URL may never be called.
    Target(TargetError),
}

/// What the end of an attempt means for the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Delivered,
    /// Again by the schedule, and not before `after`.
    Retry {
        /// The endpoint's wish.
        after: Option<Duration>,
    },
    /// The endpoint rejects the event: a dead letter. If it rejects one after the other, the endpoint is at fault, and
    /// the event is retried like any other.
    Refused {
        /// The endpoint's wish.
        after: Option<Duration>,
    },
    /// Never again, and the endpoint takes nothing more.
    Disable,
    /// Our own rules forbid calls to the endpoint: nothing was tried, and the event waits until that is corrected.
    Hold,
}

impl AttemptEnd {
    /// What follows from it.
    pub fn verdict(&self, retry_4xx: &Retry4xx) -> Verdict {
        match self {
            Self::Answered { status, retry_after } => match status.as_u16() {
                200..=299 => Verdict::Delivered,
                410 => Verdict::Disable,
                408 | 425 | 429 => Verdict::Retry { after: *retry_after },
                status @ 400..=499 if !retry_4xx.takes(status) => Verdict::Refused { after: *retry_after },
                // Redirects are not followed; they may be corrected, like everything else.
                _ => Verdict::Retry { after: *retry_after },
            },
            // A name that resolves to an internal address is like a URL with one: the operator has to correct it, and
            // no event is at fault.
            Self::Target(_) | Self::Dial(DialError::Refused(_)) => Verdict::Hold,
            Self::Dial(_) | Self::Call(_) | Self::TimedOut => Verdict::Retry { after: None },
        }
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

/// What the answer says about the next try, at most a day.
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    agentforge_egress::retry_after(headers.get(RETRY_AFTER)?.to_str().ok()?, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentforge_egress::Refusal;

    fn answered(status: u16) -> AttemptEnd {
        AttemptEnd::Answered {
            status: StatusCode::from_u16(status).unwrap(),
            retry_after: Some(Duration::from_secs(7)),
        }
    }

    #[test]
    fn every_status_has_its_outcome() {
        let again = || Verdict::Retry { after: Some(Duration::from_secs(7)) };
        let refused = || Verdict::Refused { after: Some(Duration::from_secs(7)) };
        #[rustfmt::skip] // a table
        let cases = [
            (200, Verdict::Delivered), (201, Verdict::Delivered), (204, Verdict::Delivered), (299, Verdict::Delivered),
            (301, again()), (302, again()), (304, again()), (307, again()), (308, again()),
            (400, refused()), (401, refused()), (403, refused()), (404, refused()), (409, refused()),
            (413, refused()), (422, refused()), (499, refused()),
            (408, again()), (425, again()), (410, Verdict::Disable), (429, again()), (503, again()),
            (500, again()), (501, again()), (502, again()), (504, again()), (599, again()), (600, again()),
        ];
        for (status, expected) in cases {
            let ended = answered(status);
            assert_eq!(ended.verdict(&Retry4xx::NONE), expected, "{status}");
            // An endpoint that wants client errors retried gets them all retried, except 410.
            let all = if expected == refused() { again() } else { expected };
            assert_eq!(ended.verdict(&Retry4xx::All(true)), all, "{status}");
        }
        let these = Retry4xx::These([401, 404].into());
        assert_eq!((answered(401).verdict(&these), answered(403).verdict(&these)), (again(), refused()));
    }

    #[test]
    fn network_errors_are_tried_again_and_forbidden_urls_are_not() {
        let refusal = || Refusal::PlainHttp("a.example".into());
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let again = Verdict::Retry { after: None };
        for (ended, verdict, reason) in [
            (AttemptEnd::TimedOut, again.clone(), "timeout"),
            (AttemptEnd::Dial(DialError::Connect(refused)), again.clone(), "connect"),
            (AttemptEnd::Dial(DialError::Refused(refusal())), Verdict::Hold, "egress_refused"),
            (AttemptEnd::Target(TargetError::Refused(refusal())), Verdict::Hold, "egress_refused"),
            (AttemptEnd::Target(TargetError::Unusable), Verdict::Hold, "bad_url"),
        ] {
            assert_eq!((ended.verdict(&Retry4xx::NONE), ended.reason()), (verdict, reason), "{ended:?}");
        }
    }

    #[test]
    fn retry_after_is_read_from_its_header() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (text, expected) in
            [("120", Some(120)), ("Thursday, 01-Jan-26 00:01:00 GMT", Some(60)), ("soon", None), ("\u{e9}", None)]
        {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            assert_eq!(retry_after(&headers, now), expected.map(Duration::from_secs), "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
