//! The latest judgements, shared between the keeper and those who show them.

use super::judgement::Judgement;
use super::objective::Objective;
use agentforge_proto::time::Micros;
use std::sync::{Arc, PoisonError, RwLock};

/// The latest judgements. Cheap to clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<RwLock<Shown>>);

#[derive(Debug, Default)]
struct Shown {
    at: Option<Micros>,
    judgements: Vec<Judgement>,
    without_data: Vec<Objective>,
}

impl Board {
    /// When they were made (`None`: not yet), the judgements, and the objectives without data.
    pub fn read(&self) -> (Option<Micros>, Vec<Judgement>, Vec<Objective>) {
        let shown = self.0.read().unwrap_or_else(PoisonError::into_inner);
        (shown.at, shown.judgements.clone(), shown.without_data.clone())
    }

    /// Replaces what is shown.
    pub(super) fn show(&self, at: Micros, judgements: Vec<Judgement>, without_data: Vec<Objective>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Shown { at: Some(at), judgements, without_data };
    }
}
