//! What to do with an attempt: before it runs, and after it ended. Pure decisions, no I/O.
//!
//! Owns the rules of the delivery allowance: a delivery that was not handed back by its worker means
//! that the worker was lost. Never decides against a job on incomplete knowledge.

use crate::stop::Cause;
use crate::tools::{ToolError, ToolOutput};
use agentforge_proto::{
    bus::{ErrorClass, Failure},
    time::Micros,
};

/// From this many lost workers on, an attempt is a suspect: it never runs together with another suspect, so that a job
/// that kills its worker uses up its own allowance and not that of others.
pub const SUSPECT_AFTER_LOST: u64 = 2;

/// What is known of an attempt before it runs.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The worker's clock, in microseconds since 1970.
    pub now: Micros,
    /// Past it the attempt is not started.
    pub deadline: Option<Micros>,
    /// How often JetStream handed the message over, this time included.
    pub delivered: u64,
    /// How often a worker gave it back on purpose; `None` when that could not be found out.
    pub handbacks: Option<u64>,
    /// How many workers an attempt may lose.
    pub max_lost: u64,
    /// A cancel for the job was seen.
    pub cancelled: bool,
    /// This worker has the tool.
    pub tool_known: bool,
}

/// What to do before a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Run the tool: nothing known forbids it.
    Run,
    /// Run it when no other suspect runs here, else hand it back.
    RunAsSuspect,
    /// Do not run it: it was cancelled.
    Cancelled,
    /// Do not run it: its deadline passed.
    Expired,
    /// Do not run it: it lost this many workers.
    WorkerLost(u64),
    /// Do not run it: there is no such tool here.
    ToolNotFound,
}

/// Whether the count of hand-backs can matter; it costs a round trip.
pub const fn handbacks_matter(delivered: u64, max_lost: u64) -> bool {
    // Every hand-over but this one would have to be a loss.
    lost(delivered, 0) >= if max_lost < SUSPECT_AFTER_LOST { max_lost } else { SUSPECT_AFTER_LOST }
}

/// How many workers an attempt has lost: earlier deliveries that were not handed back.
pub const fn lost(delivered: u64, handbacks: u64) -> u64 {
    delivered.saturating_sub(1).saturating_sub(handbacks)
}

/// Decides before a run.
pub fn admit(facts: &Facts) -> Admission {
    if facts.cancelled {
        return Admission::Cancelled;
    }
    if facts.deadline.is_some_and(|deadline| deadline <= facts.now) {
        return Admission::Expired;
    }
    let lost = facts.handbacks.map(|handbacks| lost(facts.delivered, handbacks));
    match lost {
        Some(lost) if lost >= facts.max_lost => Admission::WorkerLost(lost),
        _ if !facts.tool_known => Admission::ToolNotFound,
        Some(lost) if lost >= SUSPECT_AFTER_LOST => Admission::RunAsSuspect,
        None => Admission::RunAsSuspect,
        Some(_) => Admission::Run,
    }
}

/// How a run ended.
#[derive(Debug)]
pub enum RunEnd {
    /// The tool returned by itself.
    Returned(Result<ToolOutput, ToolError>),
    /// The tool panicked, with this text.
    Panicked(String),
    /// The run was stopped; what the tool printed last.
    Stopped(Cause, String),
}

/// What to report after a run.
#[derive(Debug)]
pub enum Conclusion {
    /// The tool gave this output.
    Succeeded(ToolOutput),
    /// The tool failed, or its time was over.
    Failed(Failure),
    /// It was cancelled.
    Cancelled,
    /// Nothing: another worker gets it.
    HandBack,
}

/// Decides after a run. `timeout_ms` is the bound that the run had.
pub fn conclude(end: RunEnd, timeout_ms: u64) -> Conclusion {
    match end {
        RunEnd::Returned(Ok(output)) => Conclusion::Succeeded(output),
        RunEnd::Returned(Err(error)) => Conclusion::Failed(error.into_failure()),
        RunEnd::Panicked(text) => {
            Conclusion::Failed(Failure::new(ErrorClass::Runtime, format!("the tool panicked: {text}")))
        }
        RunEnd::Stopped(Cause::TimedOut, log_tail) => {
            let message = format!("the attempt ran longer than its timeout of {timeout_ms} ms");
            Conclusion::Failed(ToolError::new(ErrorClass::Timeout, message).log_tail(log_tail).into_failure())
        }
        RunEnd::Stopped(Cause::Cancelled, _) => Conclusion::Cancelled,
        RunEnd::Stopped(Cause::Draining, _) => Conclusion::HandBack,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Facts = Facts {
        now: Micros(100),
        deadline: None,
        delivered: 1,
        handbacks: Some(0),
        max_lost: 5,
        cancelled: false,
        tool_known: true,
    };

    #[test]
    fn an_attempt_is_admitted_by_these_rules_in_this_order() {
        use Admission::*;
        let cases = [
            (FACTS, Run),
            (Facts { deadline: Some(Micros(101)), ..FACTS }, Run),
            (Facts { deadline: Some(Micros(100)), ..FACTS }, Expired),
            (Facts { deadline: Some(Micros(1)), cancelled: true, ..FACTS }, Cancelled),
            (Facts { tool_known: false, ..FACTS }, ToolNotFound),
            (Facts { tool_known: false, deadline: Some(Micros(1)), ..FACTS }, Expired),
            (Facts { delivered: 2, ..FACTS }, Run),
            (Facts { delivered: 3, ..FACTS }, RunAsSuspect),
            (Facts { delivered: 3, handbacks: Some(1), ..FACTS }, Run),
            (Facts { delivered: 5, ..FACTS }, RunAsSuspect),
            (Facts { delivered: 6, ..FACTS }, WorkerLost(5)),
            (Facts { delivered: 6, tool_known: false, ..FACTS }, WorkerLost(5)),
            (Facts { delivered: 6, handbacks: Some(1), ..FACTS }, RunAsSuspect),
            (Facts { delivered: 60, handbacks: Some(59), ..FACTS }, Run),
            (Facts { delivered: 60, handbacks: Some(70), ..FACTS }, Run),
            (Facts { delivered: 60, handbacks: None, ..FACTS }, RunAsSuspect),
        ];
        for (facts, expected) in cases {
            assert_eq!(admit(&facts), expected, "{facts:?}");
        }
    }

    #[test]
    fn a_count_of_handbacks_is_asked_for_before_it_can_matter() {
        for (delivered, max_lost) in (1..20).flat_map(|d| (1..8).map(move |m| (d, m))) {
            let facts = Facts { delivered, max_lost, ..FACTS };
            assert!(handbacks_matter(delivered, max_lost) || admit(&facts) == Admission::Run, "{delivered} {max_lost}");
        }
    }

    #[test]
    fn a_run_is_concluded_by_how_it_ended() {
        let output = || ToolOutput::json(&1).unwrap();
        assert!(matches!(conclude(RunEnd::Returned(Ok(output())), 5), Conclusion::Succeeded(_)));
        assert!(matches!(conclude(RunEnd::Stopped(Cause::Cancelled, String::new()), 5), Conclusion::Cancelled));
        assert!(matches!(conclude(RunEnd::Stopped(Cause::Draining, String::new()), 5), Conclusion::HandBack));
        let Conclusion::Failed(failure) = conclude(RunEnd::Panicked("oh".to_owned()), 5) else { panic!() };
        assert_eq!((failure.class, failure.message.as_str()), (ErrorClass::Runtime, "the tool panicked: oh"));
        let Conclusion::Failed(failure) = conclude(RunEnd::Stopped(Cause::TimedOut, "tail".to_owned()), 5) else {
            panic!()
        };
        assert_eq!((failure.class, failure.log_tail.as_str()), (ErrorClass::Timeout, "tail"));
        assert!(failure.message.contains("5 ms"));
    }
}
