//! Waiting for a condition with a deadline, never for a time.

use std::{fmt::Debug, future::Future, panic::Location, time::Duration};
use tokio::time::{Instant, sleep, timeout_at};

/// Pause between two checks of a condition: short compared with any deadline, long enough to leave the CPU alone.
const PAUSE: Duration = Duration::from_millis(15);

/// The result of one check of a condition: met, or not yet and why.
pub trait Outcome {
    /// What a met condition yields.
    type Value;
    /// The value, or the state that was seen instead.
    fn outcome(self) -> Result<Self::Value, String>;
}

impl<T> Outcome for Option<T> {
    type Value = T;
    fn outcome(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing yet".into())
    }
}

impl<T, E: Debug> Outcome for Result<T, E> {
    type Value = T;
    fn outcome(self) -> Result<T, String> {
        self.map_err(|e| format!("{e:?}"))
    }
}

impl Outcome for bool {
    type Value = ();
    fn outcome(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("false".into()) }
    }
}

/// Looks at a condition until it holds and returns its value.
///
/// `check` may give an `Option`, a `Result` (its error is the state that was seen) or a `bool`.
///
/// # Panics
/// When `deadline` passes: the message names the caller, `what`, and the last state seen.
#[track_caller]
pub fn eventually<F, Fut>(
    deadline: Duration,
    what: &str,
    mut check: F,
) -> impl Future<Output = <Fut::Output as Outcome>::Value>
where
    F: FnMut() -> Fut,
    Fut: Future,
    Fut::Output: Outcome,
{
    let caller = Location::caller();
    async move {
        let end = Instant::now() + deadline;
        let mut last = "the condition was never answered".to_owned();
        loop {
            match timeout_at(end, check()).await.map(Outcome::outcome) {
                Ok(Ok(value)) => return value,
                Ok(Err(state)) => last = state,
                Err(_) => panic!("{caller}: not within {deadline:?}: {what}; last seen: {last}"),
            }
            assert!(Instant::now() < end, "{caller}: not within {deadline:?}: {what}; last seen: {last}");
            sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn returns_the_value_once_the_condition_holds() {
        let mut looks = 0;
        let n = eventually(Duration::from_secs(5), "three looks", || {
            looks += 1;
            let seen = looks;
            async move { if seen >= 3 { Ok(seen) } else { Err(format!("{seen} looks")) } }
        })
        .await;
        assert_eq!(n, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "never true; last seen: \"still at 7\"")]
    async fn says_what_was_seen_last() {
        eventually(Duration::from_millis(40), "never true", || async { Err::<(), _>("still at 7") }).await;
    }

    #[tokio::test]
    #[should_panic(expected = "hangs; last seen: the condition was never answered")]
    async fn a_check_that_hangs_is_bounded_too() {
        eventually(Duration::from_millis(40), "hangs", std::future::pending::<bool>).await;
    }
}
