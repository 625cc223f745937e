//! How long a refusal is waited out before the thing that is refused is given up.
//!
//! Values only; the clock comes in.

use agentforge_jetstream::publish::{self, LimitOf};
use std::time::Duration;
use tokio::time::Instant;

/// How long a refusal that may come from the settings of a stream or bucket is waited out: the orchestrator, which owns
/// them, repairs them within this.
pub(crate) const REFUSAL_PATIENCE: Duration = Duration::from_secs(60);

/// What a failed try says about the next ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Each try will be refused: no owner of a stream or bucket can change that.
    RefusedForGood,
    /// Refused as the stream or bucket is now; its owner may correct that.
    Refused,
    /// Not refused: no answer, no room, nothing there yet.
    NotNow,
}

impl From<&publish::Error> for Answer {
    fn from(error: &publish::Error) -> Self {
        match error {
            // Larger than any message to this server, or not valid: no stream has a say in it. A stream's own limit is a
            // setting that its owner corrects.
            publish::Error::TooLarge { limit_of: LimitOf::Server, .. } | publish::Error::Other { code: 0, .. } => {
                Self::RefusedForGood
            }
            error if error.is_of_the_message() => Self::Refused,
            _ => Self::NotNow,
        }
    }
}

/// Since when one report or output has been refused, without another answer in between.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    since: Option<Instant>,
}

impl Patience {
    /// Takes note of a failed try; whether it was the last one.
    ///
    /// Any other answer ends the row. The owner repairs nothing while NATS is unavailable, so an outage must not use up
    /// its time.
    pub(crate) fn is_over(&mut self, answer: Answer, now: Instant) -> bool {
        match answer {
            Answer::RefusedForGood => true,
            Answer::Refused => now.duration_since(*self.since.get_or_insert(now)) >= REFUSAL_PATIENCE,
            Answer::NotNow => {
                self.since = None;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Answer::{NotNow, Refused, RefusedForGood},
        *,
    };

    /// A name, answers with their second, and at which of them it is over.
    type Case<'a> = (&'a str, &'a [(Answer, u64)], &'a [u64]);

    #[test]
    fn patience_is_over_after_a_minute_of_refusals_in_a_row() {
        let cases: [Case<'_>; 7] = [
            (
                "a refusal starts it, and later ones keep its start",
                &[(Refused, 5), (Refused, 64), (Refused, 65)],
                &[65],
            ),
            ("an outage before it does not count", &[(NotNow, 0), (NotNow, 90), (Refused, 100), (Refused, 159)], &[]),
            ("… and a minute after it is over", &[(NotNow, 0), (Refused, 100), (Refused, 160)], &[160]),
            ("an outage in the middle clears it", &[(Refused, 0), (NotNow, 10), (Refused, 90), (Refused, 149)], &[]),
            ("one other answer is enough", &[(Refused, 0), (Refused, 59), (NotNow, 59), (Refused, 61)], &[]),
            ("an outage alone is never over", &[(NotNow, 0), (NotNow, 3600)], &[]),
            (
                "what no one can correct is over at once",
                &[(RefusedForGood, 0), (NotNow, 1), (RefusedForGood, 2)],
                &[0, 2],
            ),
        ];
        let start = Instant::now();
        for (name, answers, over) in cases {
            let mut patience = Patience::default();
            let is_over =
                |(answer, second): &(Answer, u64)| patience.is_over(*answer, start + Duration::from_secs(*second));
            let seconds = answers.iter().map(|(_, second)| *second);
            let found: Vec<_> = seconds
                .zip(answers.iter().map(is_over))
                .filter_map(|(second, is_over)| is_over.then_some(second))
                .collect();
            assert_eq!(found, over, "{name}");
        }
    }

    #[test]
    fn only_what_settings_may_cause_is_waited_out() {
        let (subject, reason) = (String::new, String::new);
        let too_large = |limit_of| publish::Error::TooLarge { subject: subject(), size: 1, limit_of, reason: reason() };
        let other = |code| publish::Error::Other { subject: subject(), code, reason: reason() };
        for (error, answer) in [
            (too_large(LimitOf::Server), RefusedForGood),
            (too_large(LimitOf::Stream), Refused),
            (other(0), RefusedForGood),
            (other(10_071), Refused),
            // A sealed stream takes nothing at all, so there is nothing else to report to it.
            (other(10_109), NotNow),
            (publish::Error::Full { subject: subject(), reason: reason() }, NotNow),
            (publish::Error::Unavailable { subject: subject(), reason: reason() }, NotNow),
            (publish::Error::NoStream { subject: subject() }, NotNow),
        ] {
            assert_eq!(Answer::from(&error), answer, "{error}");
        }
    }
}
