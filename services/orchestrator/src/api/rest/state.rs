//! What all handlers share.

use crate::app::App;

/// What handlers work with.
#[derive(Clone)]
pub(crate) struct Api {
    pub(super) app: App,
}
