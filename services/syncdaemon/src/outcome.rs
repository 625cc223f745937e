//! What the answer to a publish means for its file, and when to try again. Pure.
//!
//! No answer removes a file but one that proves that the stream has it. There is no error that burns a
//! file: what cannot be stored now stays where it is.

use agentforge_jetstream::{Ack, publish::Error};
use rand::Rng;
use std::time::Duration;

/// First pause after a failure …
const PAUSE: Duration = Duration::from_millis(100);
/// … doubled up to this.
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// Why nothing is sent now. The words are values of a label and part of /readyz.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// NATS, the link or the stream does not answer.
    Unavailable,
    /// The stream is full and refuses.
    Full,
    /// The stream refuses for another reason.
    Refused,
    /// Another stream than the hub's took the message.
    WrongDomain,
    /// The ledger cannot be written: nothing could be removed.
    Ledger,
}

impl Hold {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Unavailable, Self::Full, Self::Refused, Self::WrongDomain, Self::Ledger];

    /// The word for labels and pages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Full => "full",
            Self::Refused => "refused",
            Self::WrongDomain => "wrong_domain",
            Self::Ledger => "ledger",
        }
    }
}

/// What to do about an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The stream has it.
    Stored,
    /// The stream had it before.
    Duplicate,
    /// The stream refused to store it: perhaps because it has it. Read the last message of the subject.
    LookUp,
    /// No message of this size is taken: send it in chunks.
    Chunk,
    /// The file stays, and all sending pauses.
    Hold(Hold),
}

/// Whether a content is new to the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Novelty {
    /// The stream did not have it.
    New,
    /// It was there, sent by this daemon for this very file before it was stopped.
    Recovered,
    /// The stream had it before.
    Duplicate,
}

/// Judges the answer to a publish. `domain` is the hub's JetStream domain where one is set: then an
/// acknowledgement of any other is not success, because only the hub's copy counts.
pub fn judge(answer: &Result<Ack, Error>, domain: Option<&str>) -> Verdict {
    match answer {
        Ok(ack) if domain.is_some() && ack.domain.as_deref() != domain => Verdict::Hold(Hold::WrongDomain),
        Ok(ack) if ack.duplicate => Verdict::Duplicate,
        Ok(_) => Verdict::Stored,
        Err(Error::Full { .. }) => Verdict::LookUp,
        Err(Error::TooLarge { .. }) => Verdict::Chunk,
        Err(Error::Unavailable { .. } | Error::NoStream { .. }) => Verdict::Hold(Hold::Unavailable),
        Err(Error::Other { .. }) => Verdict::Hold(Hold::Refused),
    }
}

/// How long to pause after `failures` in a row (from 1), before jitter.
pub fn pause_ceiling(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    PAUSE.saturating_mul(1 << doublings).min(PAUSE_MAX)
}

/// The pause with jitter, never less than half: many sites that lost one hub do not come back together.
pub fn pause(failures: u32) -> Duration {
    let ceiling = pause_ceiling(failures);
    rand::rng().random_range(ceiling / 2..=ceiling)
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentforge_jetstream::publish::LimitOf;

    fn ack(domain: Option<&str>, duplicate: bool) -> Result<Ack, Error> {
        Ok(Ack { seq: 1, stream: "edge_evidence".into(), domain: domain.map(str::to_owned), duplicate })
    }

    #[test]
    fn only_the_right_acknowledgement_is_success() {
        let s = || "edge.evidence.a.b".to_owned();
        let r = || "reason".to_owned();
        let too_large = |limit_of| Error::TooLarge { subject: s(), size: 1, limit_of, reason: r() };
        let cases = [
            (ack(None, false), None, Verdict::Stored),
            (ack(Some("leaf"), false), None, Verdict::Stored),
            (ack(None, true), None, Verdict::Duplicate),
            (ack(Some("hub"), false), Some("hub"), Verdict::Stored),
            (ack(Some("hub"), true), Some("hub"), Verdict::Duplicate),
            (ack(Some("leaf"), false), Some("hub"), Verdict::Hold(Hold::WrongDomain)),
            (ack(Some("leaf"), true), Some("hub"), Verdict::Hold(Hold::WrongDomain)),
            (ack(None, false), Some("hub"), Verdict::Hold(Hold::WrongDomain)),
            (Err(Error::Full { subject: s(), reason: r() }), None, Verdict::LookUp),
            (Err(Error::Unavailable { subject: s(), reason: r() }), None, Verdict::Hold(Hold::Unavailable)),
            (Err(Error::NoStream { subject: s() }), Some("hub"), Verdict::Hold(Hold::Unavailable)),
            (Err(too_large(LimitOf::Server)), None, Verdict::Chunk),
            (Err(too_large(LimitOf::Stream)), None, Verdict::Chunk),
            (Err(Error::Other { subject: s(), code: 10_109, reason: r() }), None, Verdict::Hold(Hold::Refused)),
        ];
        for (answer, domain, expected) in cases {
            assert_eq!(judge(&answer, domain), expected, "{answer:?} {domain:?}");
        }
    }

    #[test]
    fn pauses_double_up_to_a_cap_and_never_vanish() {
        let ceilings: Vec<_> = [1, 2, 3, 8, 9, 1_000].map(pause_ceiling).iter().map(Duration::as_millis).collect();
        assert_eq!(ceilings, [100, 200, 400, 12_800, 15_000, 15_000]);
        for failures in 1..50 {
            let pause = pause(failures);
            assert!(pause >= pause_ceiling(failures) / 2 && pause <= pause_ceiling(failures));
        }
    }
}
