//! `fail`: fails in the way it is asked to. For trying out retries and dead letters.
//!
//! Arguments, all optional: `class` (default `runtime`), `message`, `times` (fail the first n
//! attempts, then succeed; absent: always fail) and `retry_after_ms`.

use super::{Tool, ToolContext, ToolError, ToolOutput, parse_args};
use agentforge_proto::bus::ErrorClass;
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use std::time::Duration;

/// The tool `fail`.
#[derive(Clone, Copy, Debug)]
pub struct Fail;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    #[serde(default = "runtime")]
    class: ErrorClass,
    #[serde(default = "asked_for")]
    message: String,
    times: Option<u32>,
    retry_after_ms: Option<u64>,
}

fn runtime() -> ErrorClass {
    ErrorClass::Runtime
}

fn asked_for() -> String {
    "failed as asked".to_owned()
}

#[async_trait]
impl Tool for Fail {
    async fn run(&self, ctx: &ToolContext, args: &RawValue) -> Result<ToolOutput, ToolError> {
        let args: Args = parse_args(args)?;
        if args.class == ErrorClass::Unknown {
            return Err(ToolError::validation("`class` is not an error class"));
        }
        if args.times.is_some_and(|times| ctx.attempt.get() > times) {
            return ToolOutput::json(&json!({"attempt": ctx.attempt.get()}));
        }
        Err(ToolError::new(args.class, args.message).retry_after(args.retry_after_ms.map(Duration::from_millis)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::testing::{args, context};
    use agentforge_message_id::Attempt;

    #[tokio::test]
    async fn fail_fails_as_often_as_asked() {
        let text = args(r#"{"class":"rate_limited","message":"slow down","times":2,"retry_after_ms":70}"#);
        for (attempt, fails) in [(1, true), (2, true), (3, false)] {
            let ctx = ToolContext { attempt: Attempt::new(attempt).unwrap(), ..context() };
            let result = Fail.run(&ctx, &text).await;
            assert_eq!(result.is_err(), fails, "attempt {attempt}");
            if let Err(error) = result {
                assert_eq!(error.class, ErrorClass::RateLimited);
                assert_eq!(error.retry_after, Some(Duration::from_millis(70)));
            }
        }
    }

    #[tokio::test]
    async fn a_class_that_is_none_is_the_callers_mistake() {
        let error = Fail.run(&context(), &args(r#"{"class":"quantum"}"#)).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Validation);
    }
}
