//! What handlers share.

use crate::{access::Access, evidence::Store, links::Signer, live::Live};
use agentforge_jetstream::Nats;

/// What handlers need.
pub struct Api {
    /// Who may publish.
    pub access: Access,
    /// Where messages go.
    pub nats: Nats,
    /// ENV, which the audit log's entries name.
    pub env: String,
    /// The site of markers that name none.
    pub site: String,
    /// What was refused.
    pub live: Live,
    /// Checks the signatures of links to evidence.
    pub signer: Signer,
    /// Where evidence is.
    pub evidence: Store,
}
