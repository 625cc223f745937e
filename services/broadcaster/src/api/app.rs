//! What the handlers work with.

use super::problem::{Problem, invalid, missing};
use crate::{
    redelivery::dead_letters::DeadLetters,
    registry::{Registry, subscription::Subscription},
};
use std::sync::Arc;

/// Items of a list, unless the caller asks otherwise.
pub(super) const PAGE_DEFAULT: usize = 100;

/// Shared by all handlers. Cheap to clone.
#[derive(Clone)]
pub(super) struct Api {
    pub(super) registry: Registry,
    pub(super) dead_letters: DeadLetters,
}

/// An endpoint that is served.
pub(super) fn known(api: &Api, name: &str) -> Result<Arc<Subscription>, Problem> {
    api.registry.get(name).ok_or_else(|| missing("such endpoint"))
}

/// It becomes a token of a subject.
pub(super) fn name_of_endpoint(given: Option<String>) -> Result<Option<String>, Problem> {
    match given {
        Some(name) if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') => {
            Err(invalid("endpoint is not the name of an endpoint"))
        }
        given => Ok(given),
    }
}
