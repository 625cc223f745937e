//! An endpoint as the API shows it: never its URL, secrets or values of headers.

use crate::{
    delivery::circuit::Phase,
    registry::{
        Registry,
        subscription::{Status, Subscription},
    },
};
use serde::Serialize;
use utoipa::ToSchema;

/// Of an endpoint whose receiver cannot know who called.
const UNSIGNED: &str = "its requests are not signed: its receiver cannot tell them from others'; give it a secret";

/// An endpoint as it is listed.
#[derive(Serialize, ToSchema)]
#[schema(as = Endpoint)]
pub(super) struct EndpointView {
    name: String,
    source: &'static str,
    subjects: Vec<String>,
    format: &'static str,
    concurrency: usize,
    rate: Option<f64>,
    signed: bool,
    state: &'static str,
    detail: String,
    circuit: &'static str,
    pending: u64,
}

impl EndpointView {
    pub(super) fn of(registry: &Registry, subscription: &Subscription) -> Self {
        let endpoint = &subscription.endpoint;
        let (state, detail) = match (subscription.status(), subscription.dispatcher.flow.held()) {
            (Status::Disabled, _) => ("disabled", "it answered 410; enable it, or change its URL".to_owned()),
            _ if subscription.dispatcher.flow.is_paused() => {
                ("paused", "somebody paused it; its events wait".to_owned())
            }
            (Status::Active, Some(why)) => ("waiting", why),
            (Status::Active, None) if registry.context().is_unsigned(endpoint) => ("active", UNSIGNED.to_owned()),
            (Status::Active, None) => ("active", String::new()),
            (Status::Waiting(why), _) => ("waiting", why),
        };
        let circuit = match subscription.dispatcher.flow.phase() {
            Phase::Closed => "closed",
            Phase::Open { .. } => "open",
            Phase::ProbeDue | Phase::Probing => "probing",
        };
        Self {
            name: endpoint.name.clone(),
            source: if registry.is_managed(&endpoint.name) { "api" } else { "settings" },
            subjects: endpoint.subjects.clone(),
            format: endpoint.format.as_str(),
            concurrency: endpoint.concurrency,
            rate: endpoint.rate,
            signed: !endpoint.signer.is_empty(),
            state,
            detail,
            circuit,
            pending: subscription.pending(),
        }
    }
}
