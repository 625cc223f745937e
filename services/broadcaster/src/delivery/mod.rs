//! One attempt: a message is taken when it may go, posted, and its end is judged.

pub mod caller;
pub mod circuit;
pub mod dispatcher;
pub mod flow;
pub mod outcome;
pub mod rate_limit;
pub mod source;
