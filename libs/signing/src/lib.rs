//! Whether a message is an order: signatures of groups of messages, and tokens that come back with results.
//!
//! The orchestrator signs what it publishes, in groups: a Merkle tree over the messages of a group (RFC 6962), and one
//! Ed25519 signature of its root. Each message carries its own path to the root, so it is verified by itself. What is
//! signed are the bytes that are sent, so no canonical form is needed. Does no I/O except for reading key files.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod file;
mod keys;
mod merkle;
mod sign;
mod token;
mod verify;
mod wire;

pub use file::{KeyFile, read_private, read_public};
pub use keys::{KEYS_MAX, KeyError, KeyId, PublicKeys, new_private_pem};
pub use merkle::{Leaf, leaf};
pub use sign::{GROUP_MAX, Signer};
pub use token::Task;
pub use verify::{Refused, Verified, Verifier};

/// The header of a message that holds its signature.
pub const HEADER: &str = "Agentforge-Signature";
