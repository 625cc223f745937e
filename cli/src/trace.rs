//! The trace that a command begins, so that what it sets going can be followed from here.
//!
//! Tracing holds up no command: a setting that is wrong and a collector that is unavailable cost a note.

use crate::context::Context;
use agentforge_client::Client;
use agentforge_config::{Env, Otlp, Reader, common, otlp};
use agentforge_runtime::CommandTrace;
use agentforge_terminal::{Output, Result};
use std::time::Duration;

/// The name of the command in traces.
const SERVICE: &str = "cli";
/// How long the command waits for its span to be sent.
const FLUSH: Duration = Duration::from_secs(2);

/// A trace under way, or none where traces are turned off.
pub struct Trace {
    under_way: Option<CommandTrace>,
    out: Output,
}

impl Trace {
    /// Begins the trace of `command`; sent to OTEL_EXPORTER_OTLP_ENDPOINT, where that is set.
    pub fn begin(command: &str, out: Output) -> Self {
        let mut reader = Reader::new(&Env);
        let collector = Otlp::read(&mut reader);
        let is_off = reader.get::<bool>(&common::OTEL_SDK_DISABLED);
        if let Err(faults) = reader.finish() {
            out.note(format!("no trace: {faults}"));
            return Self { under_way: None, out };
        }
        let begun = (!is_off).then(|| CommandTrace::begin(SERVICE, command, collector.as_ref())).transpose();
        let under_way = begun.unwrap_or_else(|error| {
            out.note(format!("no trace is sent to {}: {error}", otlp::OTEL_EXPORTER_OTLP_ENDPOINT.key));
            None
        });
        Self { under_way, out }
    }

    /// The same context, whose calls belong to the trace.
    pub fn carried_by(&self, context: &Context) -> Context {
        let client = context.client.clone();
        let client = self.under_way.iter().fold(client, |client, trace| Client::traced(client, &trace.traceparent()));
        Context { client, out: context.out }
    }

    /// Ends it with the command, and sends it for at most two seconds.
    pub async fn end(self, outcome: &Result) {
        let Some(trace) = self.under_way else { return };
        let failure = outcome.as_ref().err().map(|failure| failure.message.clone());
        if !trace.end(failure, FLUSH).await {
            self.out.note(format!("the trace was not sent: no collector answered within {} s", FLUSH.as_secs()));
        }
    }
}
