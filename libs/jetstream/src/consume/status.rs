//! What a status message of the server means for the pull request it answers. Pure.

/// What to do about a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The request lives.
    Heartbeat,
    /// The request is over, `unserved` of its messages were not delivered; ask again.
    Over { unserved: Unserved },
    /// The request was refused whole for a reason that passes; ask again after a pause.
    Refused,
    /// The request was refused whole for what it says: a fault of this code.
    Wrong,
    /// The consumer is gone or served from elsewhere now: find it again.
    Rebind,
}

/// How many messages of a request did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unserved {
    /// As the server counted.
    Count(usize),
    /// The server did not say; only a new subscription makes sure.
    Unknown,
}

pub(super) fn meaning(code: u16, description: &str, pending_messages: Option<&str>) -> Meaning {
    let unserved = match pending_messages.and_then(|n| n.parse().ok()) {
        Some(n) => Unserved::Count(n),
        None => Unserved::Unknown,
    };
    match code {
        100 => Meaning::Heartbeat,
        // No message at all for this request.
        404 => Meaning::Over { unserved: Unserved::Count(usize::MAX) },
        408 => Meaning::Over { unserved },
        409 if starts_with(description, "Exceeded Max") => Meaning::Refused,
        409 if ["Consumer Deleted", "Leadership Change", "Server Shutdown", "Consumer is push based"]
            .iter()
            .any(|known| starts_with(description, known)) =>
        {
            Meaning::Rebind
        }
        409 => Meaning::Over { unserved },
        400 => Meaning::Wrong,
        // 503, no responders for requests to this consumer, and any status of later servers.
        _ => Meaning::Rebind,
    }
}

fn starts_with(text: &str, start: &str) -> bool {
    text.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_of_the_server_are_classed() {
        let over = |n| Meaning::Over { unserved: Unserved::Count(n) };
        let cases = [
            (100, "Idle Heartbeat", None, Meaning::Heartbeat),
            (404, "No Messages", None, over(usize::MAX)),
            (408, "Request Timeout", Some("7"), over(7)),
            (408, "Request Timeout", None, Meaning::Over { unserved: Unserved::Unknown }),
            (409, "Batch Completed", Some("0"), over(0)),
            (409, "Message Size Exceeds MaxBytes", Some("3"), over(3)),
            (409, "Exceeded MaxWaiting", None, Meaning::Refused),
            (409, "Exceeded MaxRequestBatch of 10", None, Meaning::Refused),
            (409, "Consumer Deleted", Some("3"), Meaning::Rebind),
            (409, "Leadership Change", Some("3"), Meaning::Rebind),
            (409, "Server Shutdown", Some("3"), Meaning::Rebind),
            (400, "Bad Request - heartbeat value too large", None, Meaning::Wrong),
            (503, "", None, Meaning::Rebind),
            (599, "not known yet", None, Meaning::Rebind),
        ];
        for (code, description, pending, expected) in cases {
            assert_eq!(meaning(code, description, pending), expected, "{code} {description}");
        }
    }
}
