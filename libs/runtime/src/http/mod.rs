//! What every HTTP listener needs: opening, serving until the stop, request ids, spans, metrics.

mod activity;
mod bodies;
mod client_certificate;
mod connection;
mod exchange;
mod grpc;
mod host;
mod instrument;
mod linger;
mod listen;
mod local;
mod openapi;
mod places;
mod problem;
mod server;
mod server_tls;
mod sockets;
mod takeover;
mod tls_files;

pub use activity::Caller;
pub use bodies::{Bodies, BodyRefusal, Held, bodies};
pub use client_certificate::ClientCertificate;
pub use grpc::serve_grpc;
pub use instrument::{REQUEST_ID_HEADER, RequestId, instrument};
pub(crate) use listen::serve_probes;
pub use listen::{bind, serve_http, serve_https};
pub(crate) use local::is_public;
pub use local::{Foreign, for_this_machine, json_only, same_machine};
pub use openapi::{OPENAPI_PATH, complete_openapi, serve_openapi};
pub use problem::{PROBLEM_MEDIA_TYPE, Problem, ProblemBody};
pub use server_tls::{ClientCertificates, GRPC_PROTOCOLS, HTTP_PROTOCOLS, ServerTls, TlsSettings};
pub use takeover::{Socket, Taken, Takeover, serve_with_takeover};
pub use tls_files::Tls;

/// Takes the settings that bound all listeners of the process. The first call decides.
pub(crate) fn configure(common: &agentforge_config::Common) {
    sockets::configure(common);
    bodies::configure(common);
    local::configure(common.is_dev() && common.bind_addr.is_loopback());
}
