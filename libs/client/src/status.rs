//! What a gRPC status means to a caller: whether the server was unavailable, and what it asked for.
//!
//! Reads codes, details and causes; the words for people are the caller's.

use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Whether the same request may succeed a moment later because the server was unavailable.
pub fn is_away(status: &Status) -> bool {
    if is_rest(status) {
        return false;
    }
    match status.code() {
        Code::Unavailable => true,
        // A connection that breaks under a request shows as Unknown or Cancelled with a transport cause.
        Code::Unknown | Code::Internal | Code::Cancelled => std::error::Error::source(status).is_some(),
        _ => false,
    }
}

/// Whether the server was never reached: nothing listens at its address, or its name leads nowhere.
pub fn was_refused(status: &Status) -> bool {
    let mut next = std::error::Error::source(status);
    while let Some(e) = next {
        if let Some(io) = e.downcast_ref::<std::io::Error>()
            && matches!(io.kind(), std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound)
        {
            return true;
        }
        // What the resolver says has no kind of its own.
        if e.to_string().contains("dns error") {
            return true;
        }
        next = e.source();
    }
    false
}

/// Whether who answered is an HTTP server that knows no gRPC: its answer has another content type or no frames of
/// gRPC, or it speaks only HTTP/1.
pub fn is_rest(status: &Status) -> bool {
    let mut text = status.message().to_owned();
    let mut next = std::error::Error::source(status);
    while let Some(e) = next {
        text = format!("{text} {e}");
        next = e.source();
    }
    let text = text.to_ascii_lowercase();
    [
        "invalid compression flag",
        "invalid content-type",
        "invalid content type",
        "grpc-status header missing",
        "frame with invalid size",
        "http/1.1",
    ]
    .iter()
    .any(|sign| text.contains(sign))
}

/// How long the server asked to wait, where it pushed back.
pub fn retry_after(status: &Status) -> Option<Duration> {
    status.get_error_details().retry_info()?.retry_delay
}

/// The stable code that the service sent, else the gRPC code as a word.
pub fn stable_code(status: &Status) -> String {
    let details = status.get_error_details();
    details.error_info().map_or_else(|| snake(&format!("{:?}", status.code())), |info| info.reason.clone())
}

fn snake(word: &str) -> String {
    let mut out = String::new();
    for c in word.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// The innermost cause: "Connection refused", rather than the layers around it.
pub fn cause(status: &Status) -> String {
    let mut last: &dyn std::error::Error = status;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_own_code_is_kept() {
        assert_eq!(stable_code(&Status::invalid_argument("x")), "invalid_argument");
        let details =
            tonic_types::ErrorDetails::with_error_info("too_large", "agentforge", [("a".to_owned(), "b".to_owned())]);
        assert_eq!(stable_code(&Status::with_error_details(Code::InvalidArgument, "x", details)), "too_large");
    }

    #[test]
    fn retry_after_is_read() {
        assert_eq!(retry_after(&Status::resource_exhausted("full")), None);
        let details = tonic_types::ErrorDetails::with_retry_info(Some(Duration::from_secs(3)));
        let status = Status::with_error_details(Code::ResourceExhausted, "full", details);
        assert_eq!(retry_after(&status), Some(Duration::from_secs(3)));
    }
}
