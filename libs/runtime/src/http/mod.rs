//! What every HTTP listener needs: opening, serving until the stop, request ids, spans, metrics.

mod connection;
mod host;
mod instrument;
mod linger;
mod listen;
mod openapi;
mod problem;
mod server;
mod server_tls;
mod takeover;

pub use instrument::{REQUEST_ID_HEADER, RequestId, instrument};
pub use listen::{bind, serve_http, serve_https};
pub use openapi::{OPENAPI_PATH, complete_openapi, serve_openapi};
pub use problem::{PROBLEM_MEDIA_TYPE, Problem, ProblemBody};
pub use server_tls::{ClientCertificates, ServerTls, TlsSettings, server_config};
pub use takeover::{ClientCertificate, Socket, Taken, Takeover, serve_with_takeover};
