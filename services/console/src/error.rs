//! Why the console cannot start or continue.

/// What ends the console.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be used, and trying again does not help.
    #[error("opening the console's database")]
    Store(#[from] crate::store::Error),
}
