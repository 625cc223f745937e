//! Errors in gRPC's form: a status whose details follow google.rpc, and the code in a trailer.

use crate::api::shown;
use crate::error::Error;
use tonic::Status;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain of our codes in `google.rpc.ErrorInfo`.
const DOMAIN: &str = "agentforge";
/// The trailer with the stable code, for clients that do not read details.
pub(super) const CODE: &str = "x-agentforge-code";

/// The status of a refusal. Causes are not included.
pub(super) fn of(e: &Error, request_id: Option<&str>) -> Status {
    let message = shown(&e.message);
    let facts = [("field", e.field), ("request_id", request_id)];
    let facts: std::collections::HashMap<String, String> =
        facts.into_iter().filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned()))).collect();
    let mut details = ErrorDetails::new();
    details.set_error_info(e.code.as_str(), DOMAIN, facts);
    if let Some(field) = e.field {
        details.add_bad_request_violation(field, &message);
    }
    let mut trailers = MetadataMap::new();
    trailers.insert(CODE, MetadataValue::from_static(e.code.as_str()));
    if let Some(wait) = e.retry_after {
        details.set_retry_info(Some(wait));
        let seconds = u64::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1);
        trailers.insert("retry-after", MetadataValue::from(seconds));
    }
    Status::with_error_details_and_metadata(e.code.grpc(), message, details, trailers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use std::time::Duration;

    #[test]
    fn a_status_carries_code_field_and_wait() {
        let status = of(&Error::field("tool", "tool is empty"), Some("r1"));
        assert_eq!((status.code(), status.message()), (tonic::Code::InvalidArgument, "tool is empty"));
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("invalid_argument", "agentforge"));
        assert_eq!((info.metadata["field"].as_str(), info.metadata["request_id"].as_str()), ("tool", "r1"));
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "tool");
        let full = of(&Error::new(Code::OutboxFull, "full").retry_after(Duration::from_millis(1500)), None);
        assert_eq!(full.metadata().get("retry-after").unwrap(), "2");
        assert_eq!(full.metadata().get(CODE).unwrap(), "outbox_full");
        assert_eq!(full.get_error_details().retry_info().unwrap().retry_delay, Some(Duration::from_millis(1500)));
    }

    #[test]
    fn a_long_message_still_fits_into_a_header() {
        assert!(of(&Error::field("labels", "x".repeat(1 << 20)), None).message().len() <= 2048);
    }
}
