//! What all handlers share.

use crate::api::limits::Budget;
use crate::app::App;

/// What handlers work with.
#[derive(Clone)]
pub(crate) struct Api {
    pub(super) app: App,
    /// Memory for the bodies of all requests under way.
    pub(super) bodies: Budget,
}
