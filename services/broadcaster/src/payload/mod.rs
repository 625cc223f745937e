//! An event and the body that is made of it: parsed, rendered for a format, signed. Pure.

pub mod alerts;
pub mod cards;
pub mod event;
pub mod metadata;
pub mod notice;
pub mod render;
pub mod signature;
pub mod text;
