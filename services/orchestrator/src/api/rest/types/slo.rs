//! Objectives as JSON: the figures that the metrics have.

use super::{Moment, moment};
use crate::slo::{Judgement, Objective, Unit};
use agentforge_proto::time::Micros;
use serde::Serialize;
use utoipa::ToSchema;

/// The state of one objective. Without data all figures but the target are null.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Slo)]
pub struct SloView {
    /// Whose it is.
    service: &'static str,
    /// Its name among those of the service.
    slo: &'static str,
    /// What it promises.
    meaning: &'static str,
    /// seconds or events: what the counts are.
    unit: &'static str,
    /// The share that must be good.
    target: f64,
    /// healthy, at_risk, breached, or no_data.
    status: &'static str,
    /// All that was observed in the window.
    total: Option<i64>,
    /// What of it was good.
    good: Option<i64>,
    /// What of it was not good.
    bad: Option<i64>,
    /// Seconds of the window that were not observed; null where events are counted.
    unknown_seconds: Option<i64>,
    /// What may be bad in the window.
    budget: Option<f64>,
    /// Share of the budget that is gone.
    consumed: Option<f64>,
    /// Share of the budget that is left; negative when it is overdrawn.
    remaining: Option<f64>,
    /// How fast the budget burns; 1 uses it up just at the end of the window.
    burn: Vec<BurnView>,
}

/// The rate of burning in one window.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SloBurn)]
pub struct BurnView {
    /// The window, minutes.
    minutes: i64,
    /// The rate.
    rate: f64,
}

/// All objectives.
#[derive(Debug, Serialize, ToSchema)]
pub struct SloList {
    /// When they were judged; null in the first seconds of the process.
    #[schema(value_type = Option<String>, format = DateTime)]
    judged_at: Option<Moment>,
    /// The window of all budgets, days.
    window_days: i64,
    /// The objectives.
    slos: Vec<SloView>,
}

impl SloList {
    pub(crate) fn new(at: Option<Micros>, judgements: &[Judgement], without_data: &[Objective]) -> Self {
        let mut slos: Vec<SloView> = judgements.iter().map(SloView::judged).collect();
        slos.extend(without_data.iter().map(SloView::without_data));
        slos.sort_by_key(|slo| (slo.service, slo.slo));
        Self { judged_at: moment(at), window_days: crate::slo::WINDOW_MINUTES / 1440, slos }
    }
}

impl SloView {
    fn without_data(objective: &Objective) -> Self {
        Self {
            service: objective.service,
            slo: objective.name,
            meaning: objective.meaning,
            unit: objective.unit.as_str(),
            target: objective.target.get(),
            status: "no_data",
            total: None,
            good: None,
            bad: None,
            unknown_seconds: None,
            budget: None,
            consumed: None,
            remaining: None,
            burn: Vec::new(),
        }
    }

    fn judged(j: &Judgement) -> Self {
        let seconds = (j.objective.unit == Unit::Seconds).then_some(j.objective.window_minutes * 60);
        Self {
            status: j.status.as_str(),
            total: Some(j.tally.total),
            good: Some(j.tally.good),
            bad: Some(j.tally.bad()),
            unknown_seconds: seconds.map(|window| window - j.tally.total),
            budget: Some(j.allowed),
            consumed: Some(j.consumed),
            remaining: Some(j.remaining()),
            burn: j.burn.iter().map(|&(minutes, rate)| BurnView { minutes, rate }).collect(),
            ..Self::without_data(&j.objective)
        }
    }
}
