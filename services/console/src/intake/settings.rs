//! Settings of the intake board.

use super::store::Limits;
use super::template::{self, Template};
use agentforge_config::{Reader, Setting};

const JOB_TEMPLATE: Setting = Setting::new(
    "INTAKE_JOB_TEMPLATE",
    Some(template::DEFAULT),
    "a submission of a job as a JSON object, at most 16 KiB; {{id}}, {{text}}, {{problem}}, {{hypothesis}}, {{tags}}, {{owner}}, {{impact}} and {{created_by}} are replaced in its texts",
    "The job that an approved item becomes.",
);
const ITEMS_MAX: Setting =
    Setting::new("INTAKE_ITEMS_MAX", Some("100000"), "number 1 to 10000000", "Items on the board at most.");
const OUTBOX_MAX: Setting = Setting::new(
    "INTAKE_OUTBOX_MAX",
    Some("100000"),
    "number 1 to 10000000",
    "Changes of items that may wait for NATS. Beyond it changes are refused until NATS is back.",
);

/// All of them.
pub const SETTINGS: &[Setting] = &[JOB_TEMPLATE, ITEMS_MAX, OUTBOX_MAX];

/// What the board needs.
#[derive(Clone, Debug)]
pub struct IntakeConfig {
    /// From an item to its job.
    pub template: Template,
    /// Bounds.
    pub limits: Limits,
}

impl IntakeConfig {
    /// Reads them.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let text: String = reader.get(&JOB_TEMPLATE);
        let template = Template::parse(&text).unwrap_or_else(|problem| {
            reader.fault(JOB_TEMPLATE.key, problem);
            Template::default()
        });
        let limits = Limits {
            items_max: reader.get_in(&ITEMS_MAX, 1..=10_000_000),
            outbox_max: reader.get_in(&OUTBOX_MAX, 1..=10_000_000),
        };
        Self { template, limits }
    }
}
