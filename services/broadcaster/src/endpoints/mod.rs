//! Endpoints as people declare them, and what their values refer to.

pub mod declaration;
pub mod reference;
pub mod retry_4xx;
