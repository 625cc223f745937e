//! Service level objectives: what is promised, and how a window of minutes is judged.
//!
//! Pure: minutes in, a judgement out. `objective` has the promises, `window` the minutes, `judgement` what they come
//! to; `observe` makes seconds of checks, `keeper` does the I/O, `board` holds the latest judgements. Nothing here reads
//! a clock, and unobserved time never counts as good.

mod board;
mod judgement;
mod keeper;
mod objective;
mod observe;
mod window;

#[cfg(test)]
mod tests;

pub use board::Board;
pub use judgement::{Judgement, Status, judge};
pub use keeper::{Keeper, Sight};
pub use objective::{CAP_US, FAST_US, Objective, Target, Targets, Unit, WINDOW_MINUTES, minute_of, objectives};
pub use observe::Observer;
pub use window::{Bucket, Finished, Tally, Window};
