//! A badge, as Shields' endpoint reads it.

use serde::Serialize;

/// Good, so so, bad, unknown: the colours that every badge uses.
pub const GREEN: &str = "brightgreen";
/// Nearly good.
pub const LIGHT_GREEN: &str = "green";
/// To be looked at.
pub const YELLOW: &str = "yellow";
/// Bad.
pub const RED: &str = "red";
/// A number without good and bad.
pub const BLUE: &str = "blue";
/// Not known.
pub const GREY: &str = "lightgrey";

/// One badge; its schema is `badge.schema.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Badge {
    schema_version: u32,
    /// The left side.
    pub label: String,
    /// The right side.
    pub message: String,
    /// Of the right side.
    pub color: &'static str,
}

impl Badge {
    /// A badge.
    pub fn new(label: &str, message: impl Into<String>, color: &'static str) -> Self {
        Self { schema_version: 1, label: label.to_owned(), message: message.into(), color }
    }
}
