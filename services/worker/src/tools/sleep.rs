//! `sleep`: waits and says for how long. For trying out timeouts, cancels and drains.
//!
//! Arguments: `{"ms": 250}` or `{"seconds": 1.5}`. Ends at once when the run is stopped.

use super::{Tool, ToolContext, ToolError, ToolOutput, parse_args};
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use std::time::Duration;

/// The tool `sleep`.
#[derive(Clone, Copy, Debug)]
pub struct Sleep;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    ms: Option<u64>,
    seconds: Option<f64>,
}

#[async_trait]
impl Tool for Sleep {
    async fn run(&self, ctx: &ToolContext, args: &RawValue) -> Result<ToolOutput, ToolError> {
        let length = length(&parse_args(args)?)?;
        tokio::select! {
            () = tokio::time::sleep(length) => ToolOutput::json(&json!({"slept_ms": length.as_millis() as u64})),
            () = ctx.cancel.cancelled() => Err(ToolError::runtime("stopped while asleep")),
        }
    }
}

fn length(args: &Args) -> Result<Duration, ToolError> {
    match (args.ms, args.seconds) {
        (Some(ms), None) => Ok(Duration::from_millis(ms)),
        (None, Some(seconds)) => {
            Duration::try_from_secs_f64(seconds).map_err(|_| ToolError::validation("`seconds` is not a length of time"))
        }
        _ => Err(ToolError::validation("give either `ms` or `seconds`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::testing::{args, context};
    use agentforge_proto::bus::ErrorClass;

    #[tokio::test]
    async fn sleep_takes_either_unit_and_refuses_the_rest() {
        for (text, expected) in [(r#"{"ms":3}"#, "3"), (r#"{"seconds":0.002}"#, "2")] {
            let output = Sleep.run(&context(), &args(text)).await.unwrap();
            assert_eq!(output.get(), format!(r#"{{"slept_ms":{expected}}}"#));
        }
        for bad in
            ["{}", r#"{"ms":1,"seconds":1}"#, r#"{"seconds":-1}"#, r#"{"seconds":1e300}"#, r#"{"minutes":1}"#, "[]"]
        {
            let error = Sleep.run(&context(), &args(bad)).await.unwrap_err();
            assert_eq!(error.class, ErrorClass::Validation, "{bad}");
        }
    }

    #[tokio::test]
    async fn a_stop_ends_the_sleep() {
        let ctx = context();
        ctx.cancel.cancel();
        let run = Sleep.run(&ctx, &args(r#"{"seconds":600}"#)).await;
        assert!(run.is_err());
    }
}
