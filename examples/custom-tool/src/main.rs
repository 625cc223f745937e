//! A worker with a custom tool: `word-count` in addition to the built-in ones.
//!
//! Implement `Tool`, put it into a box, run. Settings, health, drain and everything else stay as
//! they are: `agentforge-example-custom-tool --help`.

use agentforge_worker::{CompiledIn, Tool, ToolContext, ToolError, ToolOutput, Toolbox, WorkerWith, parse_args};
use serde_json::{json, value::RawValue};
use std::{collections::HashMap, process::ExitCode};

/// Counts the words of `{"text": "…"}`.
struct WordCount;

#[async_trait::async_trait]
impl Tool for WordCount {
    async fn run(&self, _: &ToolContext, args: &RawValue) -> Result<ToolOutput, ToolError> {
        let args: HashMap<String, String> = parse_args(args)?;
        let text = args.get("text").ok_or_else(|| ToolError::validation("`text` is missing"))?;
        ToolOutput::json(&json!({"words": text.split_whitespace().count()}))
    }
}

struct Mine;

impl CompiledIn for Mine {
    fn tools() -> Toolbox {
        Toolbox::new().with("word-count", WordCount)
    }
}

fn main() -> ExitCode {
    // First of all: passwords leave the environment.
    agentforge_worker::shed_secrets();
    // Then: commands of a tools file are started by this very program, which ends what they leave behind.
    agentforge_worker::enable_launcher();
    agentforge_runtime::main::<WorkerWith<Mine>>()
}
