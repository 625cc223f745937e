//! Makes the server agree with the plan: create, update, read back, compare.
//!
//! Safe to run at any time and concurrently. [`ensure`] stops at the first thing that cannot be made so; [`keep`]
//! continues with the others, and is for an owner that checks periodically. Both can look only (`Maker::Wait`).

use super::{
    compare::{self, Difference},
    maker::Maker,
    pause::{self, Standing},
    plan::{Plan, PlannedConsumer},
};
use crate::{
    api::{self, ApiError},
    subjects::STREAM_JOBS,
};
use async_nats::jetstream::{
    Context, ErrorCode, consumer,
    context::RequestErrorKind,
    stream::{self, DeleteStatus},
};
use serde_json::json;
use std::collections::BTreeMap;
use tracing::{info, warn};

/// Looks at one thing before it counts as never agreeing: another process may change it in between.
const ROUNDS: usize = 5;

/// Why the topology is not as planned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It exists with a field that JetStream cannot change. Nothing was changed.
    #[error("{kind} {name} has {field} {found}, expected {expected}, and this cannot be changed: {hint}")]
    Incompatible {
        /// `stream` or `consumer`.
        kind: &'static str,
        /// The name of the stream or consumer.
        name: String,
        /// The field, by its name in JetStream's API.
        field: &'static str,
        /// The value in the plan.
        expected: String,
        /// As it is.
        found: String,
        /// What a person can do.
        hint: String,
    },
    /// The server took an update and the field is still not as planned.
    #[error("{kind} {name} still has {field} {found} after an update, expected {expected}")]
    NotTaken {
        /// `stream` or `consumer`.
        kind: &'static str,
        /// The name of the stream or consumer.
        name: String,
        /// The field, by its name in JetStream's API.
        field: &'static str,
        /// The value in the plan.
        expected: String,
        /// As it is.
        found: String,
    },
    /// It does not exist, and this process is not the one that makes it.
    #[error(
        "{kind} {name} is missing: the topology makes it (agentforge-orchestrator topology); a service makes its own \
         with NATS_TOPOLOGY=make"
    )]
    Awaited {
        /// `stream` or `consumer`.
        kind: &'static str,
        /// The name of the stream or consumer.
        name: String,
    },
    /// The server refused or did not answer.
    #[error("{attempt} {kind} {name}")]
    Api {
        /// `read`, `create`, `update`, `delete`, `pause` or `resume`.
        attempt: &'static str,
        /// `stream` or `consumer`.
        kind: &'static str,
        /// The name of the stream or consumer.
        name: String,
        /// The server's refusal, or why it did not answer.
        source: ApiError,
    },
}

impl Error {
    /// Whether trying again may help: the server was not able to answer, or another process has yet to make it.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Api { source, .. } => source.is_retryable(),
            Self::Awaited { .. } => true,
            Self::Incompatible { .. } | Self::NotTaken { .. } => false,
        }
    }

    /// The stream or consumer that it is about.
    pub fn name(&self) -> &str {
        match self {
            Self::Incompatible { name, .. }
            | Self::NotTaken { name, .. }
            | Self::Awaited { name, .. }
            | Self::Api { name, .. } => name,
        }
    }

    /// Whether the server or the account has no room for what the plan reserves.
    pub fn is_short_of_storage(&self) -> bool {
        const SHORT: [ErrorCode; 4] = [
            ErrorCode::INSUFFICIENT_RESOURCES,
            ErrorCode::STORAGE_RESOURCES_EXCEEDED,
            ErrorCode::MEMORY_RESOURCES_EXCEEDED,
            ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
        ];
        matches!(self, Self::Api { source, .. } if SHORT.iter().any(|code| source.is(*code)))
    }

    /// Whether JetStream's requests have no responders: it is off for this server or account.
    pub fn is_no_jetstream(&self) -> bool {
        matches!(self, Self::Api { source: ApiError::Unavailable(e), .. } if e.kind() == RequestErrorKind::NoResponders)
    }

    /// Whether there was no answer, so that asking for the next thing is useless.
    fn is_silence(&self) -> bool {
        matches!(self, Self::Api { source: ApiError::Unavailable(_), .. })
    }

    /// Whether the server refused with this code.
    pub fn is_refused_with(&self, code: ErrorCode) -> bool {
        matches!(self, Self::Api { source, .. } if source.is(code))
    }
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Names of what was made.
    pub created: Vec<String>,
    /// Names of what was changed.
    pub updated: Vec<String>,
}

/// What a check of everything found and did.
#[derive(Debug, Default)]
pub struct Inspection {
    /// What was done.
    pub report: Report,
    /// What is not as planned, and why. Consumers of a stream that is among them are left out.
    pub faults: Vec<Error>,
    /// When each stream that is as planned was made: another moment means another stream of that name.
    pub made: BTreeMap<String, i128>,
    /// Consumers of queues that are paused and are not to be. They are left so: whether the plan is newer than the pause
    /// is for its owner to find out.
    pub paused: Vec<String>,
}

/// Like [`ensure`], for the owner of the plan, which checks periodically: one thing that cannot be made so does not
/// keep it from the others, and a consumer of another kind is recreated. (Its unacknowledged messages are redelivered;
/// a stream is never removed, since it may hold the only copy of its messages.)
///
/// With [`Maker::Wait`] only consumers of the stream of jobs are made: they follow the queues, which only their owner
/// knows. All else is looked at.
pub async fn keep(js: &Context, plan: &Plan, maker: Maker) -> Inspection {
    let mut inspection = Inspection::default();
    for config in &plan.streams {
        match agree(&Stream { js, config }, maker, &mut inspection.report).await {
            Ok(found) => {
                inspection.made.insert(config.name.clone(), found.created.unix_timestamp_nanos());
            }
            Err(e) => {
                let is_silence = e.is_silence();
                inspection.faults.push(e);
                if is_silence {
                    return inspection;
                }
            }
        }
    }
    for planned in plan.consumers.iter().filter(|planned| inspection.made.contains_key(&planned.stream)) {
        let thing = Consumer { js, planned };
        let maker = if planned.stream == STREAM_JOBS { Maker::Make } else { maker };
        let mut agreed = agree(&thing, maker, &mut inspection.report).await;
        if let Err(e @ Error::Incompatible { .. }) = &agreed {
            warn!(error = e as &dyn std::error::Error, "recreating the consumer");
            agreed = match thing.delete().await {
                Ok(()) => agree(&thing, maker, &mut inspection.report).await,
                Err(source) => {
                    Err(Error::Api { attempt: "delete", kind: "consumer", name: thing.name().to_owned(), source })
                }
            };
        }
        let followed = match agreed {
            Ok(found) if planned.stream == STREAM_JOBS => match pause::standing(&planned.config, &found) {
                Standing::Fits => Ok(()),
                Standing::Delivers => set_paused(js, thing.name(), true).await,
                Standing::IsPaused => {
                    inspection.paused.push(thing.name().to_owned());
                    Ok(())
                }
            },
            agreed => agreed.map(drop),
        };
        if let Err(e) = followed {
            let is_silence = e.is_silence();
            inspection.faults.push(e);
            if is_silence {
                return inspection;
            }
        }
    }
    inspection
}

/// Has the consumer of a queue deliver nothing, or deliver again, until the opposite is asked for. One that is missing is
/// left to the plan.
///
/// # Errors
/// The server's refusal, or its silence.
pub async fn set_paused(js: &Context, name: &str, is_paused: bool) -> Result<(), Error> {
    let attempt = if is_paused { "pause" } else { "resume" };
    let failed = |source| Error::Api { attempt, kind: "consumer", name: name.to_owned(), source };
    pause::request(js, name, is_paused).await.map_err(failed)
}

/// Creates or updates everything in the plan and makes sure that the server has it so.
///
/// # Errors
/// See [`Error`]; `is_retryable` says whether the server was merely not able to answer.
pub async fn ensure(js: &Context, plan: &Plan) -> Result<Report, Error> {
    ensure_by(js, plan, Maker::Make).await
}

/// As [`ensure`]; with [`Maker::Wait`] it only makes sure that everything exists.
///
/// # Errors
/// See [`Error`].
pub async fn ensure_by(js: &Context, plan: &Plan, maker: Maker) -> Result<Report, Error> {
    let mut report = Report::default();
    for config in &plan.streams {
        agree(&Stream { js, config }, maker, &mut report).await?;
    }
    for planned in &plan.consumers {
        agree(&Consumer { js, planned }, maker, &mut report).await?;
    }
    Ok(report)
}

/// One thing to make so. Streams and consumers differ in their requests only.
trait Thing {
    type Found;
    const KIND: &'static str;
    /// Of `read`: it is not there.
    const MISSING: ErrorCode;
    /// Of `create`: somebody else made it in between.
    const EXISTS: &'static [ErrorCode];
    fn name(&self) -> &str;
    fn remedy(&self) -> String;
    async fn read(&self) -> Result<Self::Found, ApiError>;
    async fn create(&self) -> Result<(), ApiError>;
    async fn update(&self, found: &Self::Found) -> Result<(), ApiError>;
    fn differences(&self, found: &Self::Found) -> Vec<Difference>;
}

async fn agree<T: Thing>(thing: &T, maker: Maker, report: &mut Report) -> Result<T::Found, Error> {
    let name = thing.name().to_owned();
    let failed = |attempt| {
        let name = name.clone();
        move |source| Error::Api { attempt, kind: T::KIND, name, source }
    };
    let mut last = None;
    for _ in 0..ROUNDS {
        let found = match thing.read().await {
            Ok(found) if maker == Maker::Wait => return Ok(found),
            Ok(found) => found,
            Err(e) if e.is(T::MISSING) && maker == Maker::Wait => return Err(Error::Awaited { kind: T::KIND, name }),
            Err(e) if e.is(T::MISSING) => {
                match thing.create().await {
                    Ok(()) => {
                        info!(kind = T::KIND, name, "created");
                        report.created.push(name.clone());
                    }
                    Err(e) if T::EXISTS.iter().any(|code| e.is(*code)) => {}
                    Err(e) => return Err(failed("create")(e)),
                }
                continue;
            }
            Err(e) => return Err(failed("read")(e)),
        };
        let differences = thing.differences(&found);
        if let Some(d) = differences.iter().find(|d| !d.changeable) {
            let Difference { field, expected, found, .. } = d.clone();
            return Err(Error::Incompatible { kind: T::KIND, name, field, expected, found, hint: thing.remedy() });
        }
        let Some(first) = differences.first() else { return Ok(found) };
        for d in &differences {
            warn!(
                kind = T::KIND,
                name,
                field = d.field,
                expected = d.expected,
                found = d.found,
                "updating what differs"
            );
        }
        thing.update(&found).await.map_err(failed("update"))?;
        if report.updated.last() != Some(&name) {
            report.updated.push(name.clone());
        }
        last = Some(first.clone());
    }
    match last {
        Some(Difference { field, expected, found, .. }) => {
            Err(Error::NotTaken { kind: T::KIND, name, field, expected, found })
        }
        // Created and gone again each time.
        None => {
            Err(Error::NotTaken { kind: T::KIND, name, field: "existence", expected: "yes".into(), found: "no".into() })
        }
    }
}

struct Stream<'a> {
    js: &'a Context,
    config: &'a stream::Config,
}

impl Thing for Stream<'_> {
    type Found = stream::Info;
    const KIND: &'static str = "stream";
    const MISSING: ErrorCode = ErrorCode::STREAM_NOT_FOUND;
    const EXISTS: &'static [ErrorCode] = &[ErrorCode::STREAM_NAME_EXIST];

    fn name(&self) -> &str {
        &self.config.name
    }
    fn remedy(&self) -> String {
        let name = self.name();
        format!("drain or back up its messages, then delete it (nats stream rm {name}); it is recreated within seconds")
    }
    async fn read(&self) -> Result<stream::Info, ApiError> {
        api::call(self.js, format!("STREAM.INFO.{}", self.name()), &json!({})).await
    }
    async fn create(&self) -> Result<(), ApiError> {
        api::call::<stream::Info>(self.js, format!("STREAM.CREATE.{}", self.name()), self.config).await.map(drop)
    }
    async fn update(&self, found: &stream::Info) -> Result<(), ApiError> {
        let config = compare::updated_stream(self.config, &found.config);
        api::call::<stream::Info>(self.js, format!("STREAM.UPDATE.{}", self.name()), &config).await.map(drop)
    }
    fn differences(&self, found: &stream::Info) -> Vec<Difference> {
        compare::stream(self.config, &found.config)
    }
}

struct Consumer<'a> {
    js: &'a Context,
    planned: &'a PlannedConsumer,
}

impl Consumer<'_> {
    async fn write(&self, config: &consumer::Config, action: &str) -> Result<(), ApiError> {
        let PlannedConsumer { stream, .. } = self.planned;
        let subject = format!("CONSUMER.CREATE.{stream}.{}.{}", self.name(), config.filter_subject);
        let body = json!({"stream_name": stream, "config": config, "action": action});
        api::call::<consumer::Info>(self.js, subject, &body).await.map(drop)
    }

    async fn delete(&self) -> Result<(), ApiError> {
        let subject = format!("CONSUMER.DELETE.{}.{}", self.planned.stream, self.name());
        match api::call::<DeleteStatus>(self.js, subject, &json!({})).await {
            Err(e) if e.is(Self::MISSING) => Ok(()),
            deleted => deleted.map(drop),
        }
    }
}

impl Thing for Consumer<'_> {
    type Found = consumer::Config;
    const KIND: &'static str = "consumer";
    const MISSING: ErrorCode = ErrorCode::CONSUMER_NOT_FOUND;
    const EXISTS: &'static [ErrorCode] = &[ErrorCode::CONSUMER_ALREADY_EXISTS, ErrorCode::CONSUMER_NAME_EXIST];

    fn name(&self) -> &str {
        self.planned.config.durable_name.as_deref().unwrap_or_default()
    }
    fn remedy(&self) -> String {
        let (stream, name) = (&self.planned.stream, self.name());
        format!(
            "delete it (nats consumer rm {stream} {name}); unacknowledged messages stay, and it is recreated within seconds"
        )
    }
    async fn read(&self) -> Result<consumer::Config, ApiError> {
        let subject = format!("CONSUMER.INFO.{}.{}", self.planned.stream, self.name());
        let info: consumer::Info = api::call(self.js, subject, &json!({})).await?;
        Ok(info.config)
    }
    async fn create(&self) -> Result<(), ApiError> {
        self.write(&self.planned.config, "create").await
    }
    async fn update(&self, found: &consumer::Config) -> Result<(), ApiError> {
        self.write(&compare::updated_consumer(&self.planned.config, found), "update").await
    }
    fn differences(&self, found: &consumer::Config) -> Vec<Difference> {
        compare::consumer(&self.planned.config, found)
    }
}
