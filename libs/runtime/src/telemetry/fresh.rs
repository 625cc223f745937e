//! A layer that has every event and span judged when it happens, and never by a judgement kept from before.
//!
//! Filters of single layers leave their verdicts in the thread. If a library asks whether something would be logged
//! (`enabled!`) and logs nothing, the verdict "no" stays there, and the next event whose callsite was found to be
//! always wanted is not judged again: it meets that "no" and is lost
//! (<https://github.com/tokio-rs/tracing/issues/2519>). sqlx asks so after each statement.

use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;

/// Goes outermost; it writes nothing.
pub(super) struct Fresh {
    /// The finest level that any layer below wants.
    pub(super) level: LevelFilter,
}

impl<S: Subscriber> Layer<S> for Fresh {
    /// "Sometimes" is what makes the subscriber ask its filters each time.
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }
}
