//! One run of one tool: under its timeout, stoppable, isolated from panics.
//!
//! Knows nothing of NATS. A run ends within its timeout and three seconds for every tool that
//! yields; a tool that blocks its thread cannot be ended from outside, which is why deliveries are
//! kept alive from another thread, and only for as long as the run may last.

use crate::attempt::RunEnd;
use crate::stop::{Cause, Stop};
use crate::tools::{Tool, ToolContext, ToolError, ToolOutput};
use futures_util::FutureExt;
use serde_json::value::RawValue;
use std::{any::Any, panic::AssertUnwindSafe, time::Duration};
use tokio::time::{Instant, sleep_until, timeout};

/// How long a stopped tool may take to return before it is dropped.
pub const STOP_GRACE: Duration = Duration::from_secs(3);

/// Runs the tool to its end. `on_started` is called once if the run lasts longer than `started_after`.
pub async fn run(
    tool: &dyn Tool,
    ctx: &ToolContext,
    args: &RawValue,
    stop: &Stop,
    started_after: Duration,
    on_started: impl AsyncFnOnce(),
) -> RunEnd {
    if let Some(cause) = stop.cause() {
        return RunEnd::Stopped(cause, String::new());
    }
    let work = AssertUnwindSafe(async { tool.run(ctx, args).await }).catch_unwind();
    tokio::pin!(work);
    let started = Instant::now();
    // A tool that is done at its first poll costs no timer.
    tokio::select! {
        biased;
        done = &mut work => return ended(stop, done),
        () = stop.token().cancelled() => return stopped(stop, timeout(STOP_GRACE, work).await.ok()),
        () = sleep_until(started + started_after.min(ctx.timeout)) => {}
    }
    on_started().await;
    tokio::select! {
        biased;
        done = &mut work => ended(stop, done),
        () = stop.token().cancelled() => stopped(stop, timeout(STOP_GRACE, work).await.ok()),
        () = sleep_until(started + ctx.timeout) => {
            stop.stop(Cause::TimedOut);
            stopped(stop, timeout(STOP_GRACE, work).await.ok())
        }
    }
}

type Done = Result<Result<ToolOutput, ToolError>, Box<dyn Any + Send>>;

/// A tool may see its stop before we do: what it returns then is the result of a stopped tool.
fn ended(stop: &Stop, done: Done) -> RunEnd {
    if stop.cause().is_some() {
        return stopped(stop, Some(done));
    }
    match done {
        Ok(result) => RunEnd::Returned(result),
        Err(panic) => RunEnd::Panicked(panic_text(panic.as_ref())),
    }
}

/// Of what a stopped tool returns only the log is of use.
fn stopped(stop: &Stop, done: Option<Done>) -> RunEnd {
    let log_tail = match done {
        Some(Ok(Err(error))) => error.log_tail,
        _ => String::new(),
    };
    RunEnd::Stopped(stop.cause().unwrap_or(Cause::Draining), log_tail)
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a text").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::testing::{args, context};
    use async_trait::async_trait;
    use std::sync::atomic::{AtomicUsize, Ordering};

    enum Behaviour {
        Return,
        Panic,
        Obey,
        Ignore,
    }

    #[async_trait]
    impl Tool for Behaviour {
        async fn run(&self, ctx: &ToolContext, _: &RawValue) -> Result<ToolOutput, ToolError> {
            match self {
                Self::Return => {}
                Self::Panic => panic!("number {}", 7),
                Self::Obey => {
                    ctx.cancel.cancelled().await;
                    return Err(ToolError::runtime("stopped").log_tail("last words".to_owned()));
                }
                Self::Ignore => std::future::pending().await,
            }
            ToolOutput::json(&1)
        }
    }

    async fn ends(tool: Behaviour, timeout_ms: u64, stop: &Stop) -> (RunEnd, usize, Duration) {
        let (reports, started) = (AtomicUsize::new(0), Instant::now());
        let ctx = ToolContext { cancel: stop.token().clone(), timeout: Duration::from_millis(timeout_ms), ..context() };
        let note = async || {
            reports.fetch_add(1, Ordering::Relaxed);
        };
        let end = run(&tool, &ctx, &args("{}"), stop, Duration::from_millis(5), note).await;
        (end, reports.load(Ordering::Relaxed), started.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_run_says_nothing_of_its_start() {
        let (end, started, _) = ends(Behaviour::Return, 1000, &Stop::default()).await;
        assert!(matches!(end, RunEnd::Returned(Ok(_))));
        assert_eq!(started, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_stays_inside() {
        let (end, _, _) = ends(Behaviour::Panic, 1000, &Stop::default()).await;
        assert!(matches!(end, RunEnd::Panicked(text) if text == "number 7"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_stops_the_tool_and_keeps_its_log() {
        let (end, started, took) = ends(Behaviour::Obey, 1000, &Stop::default()).await;
        assert!(matches!(end, RunEnd::Stopped(Cause::TimedOut, log) if log == "last words"));
        assert_eq!((started, took.as_millis()), (1, 1000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_tool_that_does_not_listen_is_dropped() {
        let (end, _, took) = ends(Behaviour::Ignore, 1000, &Stop::default()).await;
        assert!(matches!(end, RunEnd::Stopped(Cause::TimedOut, _)));
        assert_eq!(took, Duration::from_millis(1000) + STOP_GRACE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_from_outside_keeps_its_cause() {
        for cause in [Cause::Cancelled, Cause::Draining] {
            let stop = Stop::default();
            let (end, ()) = tokio::join!(ends(Behaviour::Obey, 60_000, &stop), async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                stop.stop(cause);
            });
            assert!(matches!(end.0, RunEnd::Stopped(found, _) if found == cause));
        }
    }
}
