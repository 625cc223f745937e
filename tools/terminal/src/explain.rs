//! What goes wrong between a program and the orchestrator, in words: one line of what failed and a hint.

use crate::{
    error::{Failure, Result},
    output::{clean, short_duration},
};
use agentforge_client::{
    self as client, Client, NotFinal, cause, is_away, is_rest, retry_after, stable_code, view::state_word,
};
use agentforge_proto::v1;
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Code, Status};

impl From<client::Error> for Failure {
    fn from(e: client::Error) -> Self {
        let cause = std::error::Error::source(&e).map(|cause| format!(": {}", chain(cause))).unwrap_or_default();
        Self::usage(format!("{e}{cause}"))
    }
}

impl From<client::SubmitError> for Failure {
    fn from(e: client::SubmitError) -> Self {
        Self::new(one_line(&e.to_string()))
    }
}

impl From<client::tactical::Error> for Failure {
    fn from(e: client::tactical::Error) -> Self {
        use client::tactical::Error;
        match &e {
            Error::Url(_) => Self::usage(e.to_string()).hint("for TLS use curl, or a port-forward to the service"),
            Error::NoAnswer { .. } => {
                Self::new(e.to_string()).hint("--url names its HTTP port (HTTP_PORT, 8010 if not set); is it running?")
            }
            Error::Refused { status: 401, .. } => {
                Self::new(e.to_string()).hint("give the token with --token or AGENTFORGE_TOKEN")
            }
            Error::Refused { .. } => Self::new(e.to_string()),
        }
    }
}

/// Failures of calls, in words.
pub trait Explain {
    /// What a status means, in one line with a hint. `doing` completes "… failed".
    fn failure(&self, doing: &str, status: &Status) -> Failure;
}

impl Explain for Client {
    fn failure(&self, doing: &str, status: &Status) -> Failure {
        explain(doing, status, self.server())
    }
}

/// Waits until the job is final and gives it; `limit` bounds the wait. `is_known` when the server was reached before,
/// so that one that is unavailable now is waited for.
///
/// # Errors
/// No such job, a server that stays away, or a job that is not final when the time is up.
pub async fn until_final(
    client: &Client,
    id: &str,
    began: Instant,
    limit: Option<Duration>,
    is_known: bool,
) -> Result<v1::Job> {
    client.until_final(id, began, limit, is_known).await.map_err(|e| match e {
        NotFinal::Refused(status) => client.failure("waiting for the job", &status),
        NotFinal::StillOpen { state, after } => {
            Failure::new(format!("job {id} is still {} after {}", state_word(state), short_duration(after)))
                .code("still_running")
                .hint(format!("it is still open; follow it with `agentforge job watch {id}`"))
        }
    })
}

fn explain(doing: &str, status: &Status, server: &str) -> Failure {
    let code = one_line(&stable_code(status));
    let text = one_line(status.message());
    let failure = match status.code() {
        _ if is_rest(status) => {
            return Failure::new(format!("{doing} failed: {server} answers, but not with gRPC"))
                .code("not_grpc")
                .hint("this looks like the REST port (8080) or another HTTP server; gRPC is on port 50051 unless GRPC_PORT says otherwise");
        }
        _ if is_away(status) && cause(status).contains("certificate") => {
            return Failure::new(format!("{doing} failed: the certificate of {server} is not trusted ({})", one_line(&cause(status))))
                .code("untrusted")
                .hint("name the file of its authority with --ca or AGENTFORGE_CA_FILE, and the server as its certificate does");
        }
        _ if is_away(status) && std::error::Error::source(status).is_some() => {
            return Failure::new(format!("{doing} failed: the orchestrator at {server} cannot be reached ({})", one_line(&cause(status))))
                .code("unreachable")
                .hint("start everything here with `agentforge dev`, or name another server with --server or AGENTFORGE_SERVER");
        }
        Code::Unauthenticated => "give a token with AGENTFORGE_TOKEN or --token".to_owned(),
        Code::PermissionDenied => "use a token whose role allows it: read, submit or admin".to_owned(),
        Code::NotFound => {
            "check the id; `agentforge job list`, `schedule list` and `agent list` show what there is".to_owned()
        }
        Code::ResourceExhausted => match retry_after(status) {
            Some(wait) => format!("the server pushes back; try again in {}", short_duration(wait)),
            None => "the server pushes back; try again in a moment".to_owned(),
        },
        Code::AlreadyExists => "use another id, key or name, or send the same body again".to_owned(),
        Code::InvalidArgument | Code::OutOfRange => "correct what is named above; --help shows the form".to_owned(),
        Code::FailedPrecondition => {
            "its state does not allow it; `agentforge job get ID` shows it, `job retry ID` runs again what ended without success"
                .to_owned()
        }
        Code::DeadlineExceeded => {
            "allow more time with --request-timeout, or look at the orchestrator's /readyz".to_owned()
        }
        Code::Unimplemented => "client and server differ in version; `agentforge --version` shows this one".to_owned(),
        _ => "look at the orchestrator's log and its /readyz".to_owned(),
    };
    Failure::new(format!("{doing} failed: {text}")).code(code).hint(failure)
}

fn chain(e: &dyn std::error::Error) -> String {
    let mut out = e.to_string();
    let mut next = e.source();
    while let Some(e) = next {
        out = format!("{out}: {e}");
        next = e.source();
    }
    one_line(&out)
}

fn one_line(text: &str) -> String {
    clean(text, 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_becomes_one_line_with_a_hint() {
        for (status, part, hint) in [
            (Status::invalid_argument("max_attempts is 0\nwhat"), "max_attempts is 0 what", "correct"),
            (Status::unauthenticated("no token"), "no token", "AGENTFORGE_TOKEN"),
            (Status::permission_denied("role read"), "role read", "role"),
            (Status::not_found("there is no job x"), "no job x", "job list"),
            (Status::resource_exhausted("outbox full"), "outbox full", "try again"),
            (Status::deadline_exceeded("late"), "late", "--request-timeout"),
            (Status::failed_precondition("job x is succeeded"), "is succeeded", "job get"),
            (
                Status::internal("protocol error: received message with invalid compression flag: 123"),
                "not with gRPC",
                "50051",
            ),
        ] {
            let failure = explain("submitting", &status, "http://h");
            assert!(failure.message.contains(part) && !failure.message.contains('\n'), "{failure:?}");
            assert!(failure.hint.as_deref().unwrap().contains(hint), "{failure:?}");
            assert_eq!(failure.exit, 1);
        }
    }
}
