//! The intake board: items that people and programs bring in, decided upon, and turned into jobs.
//!
//! Owns the items, their states and the events about them; the routes of the todo application are another view of the
//! same items. A change and its event are stored together; `outbox` hands events to NATS when it can.

mod api;
mod board;
mod event;
mod item;
pub mod metrics;
pub mod outbox;
pub mod settings;
pub mod store;
mod submit;
mod template;
mod todos;

#[cfg(test)]
mod tests;

pub use api::router;
pub use board::Intake;
pub use submit::{Submit, SubmitError};
pub use todos::{health_router, router as todo_router};
