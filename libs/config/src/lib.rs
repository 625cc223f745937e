//! One way to read settings: declared once, read once, all faults reported together.
//!
//! A [`Setting`] is the declaration (key, default, allowed values, help). A [`Reader`] takes values
//! from a [`Source`], parses them into real types and remembers every fault and every effective
//! value. `--help` and the configuration page are made from the same declarations.
//! Nothing here prints, exits or reads the environment on its own, and no secret is ever shown.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod common;
mod docs;
mod effective;
mod fault;
mod nearest;
pub mod otlp;
mod parse;
mod quantity;
mod reader;
mod redact;
mod secret_file;
mod setting;
mod source;
mod unknown;

pub use common::{Common, ListenerTls, LogFormat};
pub use docs::{help, markdown};
pub use effective::{Effective, Entry, Origin};
pub use fault::{EXIT_CODE, Fault, Faults};
pub use nearest::nearest;
pub use otlp::{Otlp, OtlpProtocol};
pub use parse::{CommaList, Parse, truth};
pub use quantity::{ByteSize, parse_byte_size, parse_duration, show_duration};
pub use reader::Reader;
pub use redact::{HIDDEN, without_credentials};
pub use secrecy::{ExposeSecret, SecretString};
pub use secret_file::{SecretFile, read as read_secret_file};
pub use setting::Setting;
pub use source::{Env, Source};
pub use unknown::{Unknown, unknown};
pub use url::Url;

/// A value that must never be shown; its `Debug` prints `[REDACTED]`.
pub type Secret = SecretString;
