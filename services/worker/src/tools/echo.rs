//! `echo`: gives its arguments back, byte for byte. For trying things out and for load.

use super::{Tool, ToolContext, ToolError, ToolOutput};
use async_trait::async_trait;
use serde_json::value::RawValue;

/// The tool `echo`.
#[derive(Clone, Copy, Debug)]
pub struct Echo;

#[async_trait]
impl Tool for Echo {
    async fn run(&self, _: &ToolContext, args: &RawValue) -> Result<ToolOutput, ToolError> {
        Ok(ToolOutput::raw(args.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::testing::{args, context};

    #[tokio::test]
    async fn echo_keeps_every_byte() {
        let text = r#"{"b":1.10, "a":12345678901234567890123}"#;
        assert_eq!(Echo.run(&context(), &args(text)).await.unwrap().get(), text);
    }
}
