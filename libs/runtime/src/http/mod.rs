//! What every HTTP listener needs: opening, serving until the stop, request ids, spans, metrics.

mod connection;
mod instrument;
mod linger;
mod listen;
mod tls;

pub use instrument::{REQUEST_ID_HEADER, RequestId, instrument};
pub use listen::{bind, serve_http, serve_https};
