//! What a worker can run: the `Tool` trait, the box that holds tools by name, the built-in ones.
//!
//! A tool gets JSON and gives JSON; it knows nothing of NATS, deliveries or retries. Tools are
//! looked up here and nowhere else; a name has one tool.

pub mod echo;
pub mod exec;
pub mod fail;
pub mod http;
pub mod sleep;

use agentforge_message_id::{Attempt, JobId, ToolName};
use agentforge_proto::bus::{ErrorClass, Failure, truncate};
use agentforge_proto::time::Micros;
use async_trait::async_trait;
use serde_json::value::RawValue;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// Something a worker runs. Implement it to compile your own tool in; see `examples/custom-tool`.
#[async_trait]
pub trait Tool: Send + Sync + 'static {
    /// Runs once for one attempt at a job.
    ///
    /// The same attempt may run again after a worker was lost, so its effects should be harmless
    /// twice; `ctx.job` is the key to use for that. Panics are caught and count as `runtime`
    /// failures. When `ctx.cancel` fires (cancelled, timed out or draining), stop soon: what is
    /// returned after it is not looked at, and three seconds later the future is dropped.
    ///
    /// # Errors
    /// [`ToolError`], whose class decides whether another attempt follows.
    async fn run(&self, ctx: &ToolContext, args: &RawValue) -> Result<ToolOutput, ToolError>;
}

/// What a tool may know of the job it runs for.
#[derive(Clone, Debug)]
pub struct ToolContext {
    /// The job; the same in every attempt.
    pub job: JobId,
    /// Which try this is, from 1.
    pub attempt: Attempt,
    /// Which hand-over of this attempt, from 1; more than 1 after a worker was lost or drained.
    pub delivery: u64,
    /// Fires when the run must end.
    pub cancel: CancellationToken,
    /// How long the run may take from its start.
    pub timeout: Duration,
    /// The time of the job in its schedule, however late it runs.
    pub scheduled_at: Option<Micros>,
}

/// A tool's result: JSON, passed on byte for byte.
#[derive(Clone, Debug)]
pub struct ToolOutput(Box<RawValue>);

impl ToolOutput {
    /// JSON that is at hand as text.
    pub fn raw(json: Box<RawValue>) -> Self {
        Self(json)
    }

    /// Any value that serializes to JSON.
    ///
    /// # Errors
    /// A `runtime` error when it does not serialize.
    pub fn json<T: serde::Serialize + ?Sized>(value: &T) -> Result<Self, ToolError> {
        serde_json::value::to_raw_value(value)
            .map(Self)
            .map_err(|e| ToolError::new(ErrorClass::Runtime, format!("the result is not JSON: {e}")))
    }

    /// The output's JSON as the tool wrote it, without parsing it again.
    pub fn into_raw(self) -> Box<RawValue> {
        self.0
    }

    /// The JSON as text.
    pub fn get(&self) -> &str {
        self.0.get()
    }
}

/// Why a tool gave no result.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {message}", class.as_str())]
pub struct ToolError {
    /// Decides whether another attempt follows.
    pub class: ErrorClass,
    /// What went wrong, in words for people; it is stored with the attempt.
    pub message: String,
    /// When another attempt may begin, if the tool knows.
    pub retry_after: Option<Duration>,
    /// The last of what it printed.
    pub log_tail: String,
}

impl ToolError {
    /// An error without a log.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), retry_after: None, log_tail: String::new() }
    }

    /// The arguments are wrong; another attempt would not help.
    pub fn validation(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Validation, message)
    }

    /// It failed and would fail again.
    pub fn runtime(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Runtime, message)
    }

    /// It failed and may work later.
    pub fn transient(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Transient, message)
    }

    /// The same error with the tool's wish when to try again.
    pub fn retry_after(mut self, after: Option<Duration>) -> Self {
        self.retry_after = after;
        self
    }

    /// The same error with what the tool printed last.
    pub fn log_tail(mut self, tail: String) -> Self {
        self.log_tail = tail;
        self
    }

    /// As it travels: texts cut to their limits, and classes that are not a tool's to give
    /// (a tool cannot say that a worker was lost) taken as `runtime`.
    pub fn into_failure(self) -> Failure {
        let class = match self.class {
            ErrorClass::Transient
            | ErrorClass::Network
            | ErrorClass::Timeout
            | ErrorClass::RateLimited
            | ErrorClass::Validation
            | ErrorClass::ToolNotFound
            | ErrorClass::Permission
            | ErrorClass::Runtime => self.class,
            ErrorClass::WorkerLost
            | ErrorClass::Expired
            | ErrorClass::Cancelled
            | ErrorClass::InvalidMessage
            | ErrorClass::Unknown => ErrorClass::Runtime,
        };
        let mut failure = Failure::new(class, self.message);
        failure.retry_after_ms = self.retry_after.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        failure.log_tail = self.log_tail;
        truncate(&mut failure.log_tail, Failure::LOG_TAIL_MAX_BYTES);
        failure
    }
}

/// Reads a tool's arguments into its own type; what does not fit is a `validation` error.
///
/// # Errors
/// [`ToolError`] that names the field and the line.
pub fn parse_args<'a, T: serde::Deserialize<'a>>(args: &'a RawValue) -> Result<T, ToolError> {
    serde_json::from_str(args.get()).map_err(|e| ToolError::validation(format!("the arguments are wrong: {e}")))
}

/// A name was given to two tools, or is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolboxError {
    /// The name is taken.
    #[error("two tools are named {0}")]
    Twice(ToolName),
    /// The name breaks the grammar.
    #[error(transparent)]
    Name(#[from] agentforge_message_id::NameError),
}

/// Tools by name. Cheap to clone.
#[derive(Clone, Default)]
pub struct Toolbox {
    tools: BTreeMap<ToolName, Arc<dyn Tool>>,
}

impl Toolbox {
    /// An empty box.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tool.
    ///
    /// # Errors
    /// [`ToolboxError`] when the name is none, or taken.
    pub fn add(&mut self, name: &str, tool: impl Tool) -> Result<(), ToolboxError> {
        self.add_shared(ToolName::new(name)?, Arc::new(tool))
    }

    /// Adds a tool that is shared already.
    ///
    /// # Errors
    /// [`ToolboxError::Twice`] when the name is taken.
    pub fn add_shared(&mut self, name: ToolName, tool: Arc<dyn Tool>) -> Result<(), ToolboxError> {
        if self.tools.contains_key(&name) {
            return Err(ToolboxError::Twice(name));
        }
        self.tools.insert(name, tool);
        Ok(())
    }

    /// The box with one more tool; for writing a box down in one expression.
    ///
    /// # Panics
    /// When the name is none or taken: the names are constants of the program.
    #[must_use]
    pub fn with(mut self, name: &str, tool: impl Tool) -> Self {
        self.add(name, tool).expect("tools that are compiled in have valid names of their own");
        self
    }

    /// The tool of this name.
    pub fn get(&self, name: &ToolName) -> Option<&Arc<dyn Tool>> {
        self.tools.get(name)
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &ToolName> {
        self.tools.keys()
    }

    /// All tools, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&ToolName, &Arc<dyn Tool>)> {
        self.tools.iter()
    }
}

impl std::fmt::Debug for Toolbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.tools.keys()).finish()
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A context for a first attempt with half a minute.
    pub fn context() -> ToolContext {
        ToolContext {
            job: JobId::generate(),
            attempt: Attempt::FIRST,
            delivery: 1,
            cancel: CancellationToken::new(),
            timeout: Duration::from_secs(30),
            scheduled_at: None,
        }
    }

    /// JSON text as arguments.
    pub fn args(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_tool() {
        let mut tools = Toolbox::new().with("echo", echo::Echo);
        assert!(matches!(tools.add("echo", echo::Echo), Err(ToolboxError::Twice(_))));
        assert!(matches!(tools.add("no spaces", echo::Echo), Err(ToolboxError::Name(_))));
    }

    #[test]
    fn a_tool_cannot_speak_for_the_worker() {
        for class in [ErrorClass::WorkerLost, ErrorClass::Cancelled, ErrorClass::Expired, ErrorClass::Unknown] {
            assert_eq!(ToolError::new(class, "x").into_failure().class, ErrorClass::Runtime);
        }
        assert_eq!(ToolError::transient("x").into_failure().class, ErrorClass::Transient);
    }

    #[test]
    fn failures_are_cut_to_their_limits() {
        let failure = ToolError::runtime("é".repeat(9_000)).log_tail("é".repeat(9_000)).into_failure();
        assert!(failure.message.len() <= Failure::MESSAGE_MAX_BYTES);
        assert!(failure.log_tail.len() <= Failure::LOG_TAIL_MAX_BYTES);
    }
}
