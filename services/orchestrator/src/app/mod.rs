//! The application core: what gRPC and REST both call.
//!
//! Owns admission, the group committer, watches and the limits; relies on a [`Store`] and, for
//! publishing, on the relay. Knows no protocol.

mod asked;
mod audit;
mod backlog;
mod cancels;
mod committer;
mod counting;
mod counts;
mod gauge;
mod handoff;
mod jobs;
mod lookup;
mod marks;
mod operations;
mod parked;
mod pauses;
mod pausing;
mod pressure;
mod put_back;
mod queue_stats;
mod queues;
mod rates;
mod reach;
mod reuse;
mod schedules;
mod shown;
mod submissions;
mod turns;
mod upkeep;
mod walk;
mod watchers;

pub use asked::{DeadLetterQuery, JobQuery};
pub use audit::AuditQuery;
pub use backlog::Backlog;
pub use cancels::CancelSpec;
pub(crate) use committer::Outlets;
pub use committer::{CommitLoop, Committer, CommitterConfig};
pub(crate) use counts::Counts;
pub use counts::{COUNTS_AGE_MAX, JobCounts};
pub use gauge::OutboxGauge;
pub(crate) use handoff::{Handed, Handoffs, handoffs};
pub use jobs::JobOutput;
pub use lookup::DiscardSpec;
pub use marks::Lazy;
pub(crate) use operations::operations_loop;
pub(crate) use pauses::{PAUSED, Pauses};
pub(crate) use pausing::pauses_loop;
pub use put_back::{RedriveSpec, RetrySpec};
pub use queue_stats::{Paused, QueueStats};
pub use queues::Queues;
pub(crate) use rates::Rates;
pub use schedules::{ScheduleChange, ScheduleInput};
pub use submissions::Stored;
pub(crate) use submissions::TOGETHER;
pub use turns::RunNow;
pub use walk::Progress;
pub use watchers::{JobWatchers, Subscription, Update};

use crate::admission::Limits;
use crate::error::{Code, Error};
use crate::links::Links;
use crate::model::{Agent, Job};
use crate::sensitive::Marks;
use crate::slo::Board;
use crate::store::Store;
use agentforge_access::Scopes;
use agentforge_message_id::{AgentId, Mission};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// How far the opening of the database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// It was begun.
    UnderWay,
    /// The database cannot be had; it is tried again.
    Away(String),
    /// It may be used.
    Open,
}

/// Callers who come while the database is being opened wait so long.
const OPENING_MAX: Duration = Duration::from_secs(5);

/// Cheap to clone; all clones are the same application. With scopes it acts for a caller that has them.
#[derive(Clone)]
pub struct App(Arc<Inner>, Scopes);

pub(crate) struct Inner {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) committer: Committer,
    pub(crate) watchers: JobWatchers,
    pub(crate) outbox: OutboxGauge,
    pub(crate) backlog: Arc<Backlog>,
    pub(crate) queues: Queues,
    pub(crate) limits: Limits,
    pub(crate) args_max_bytes: AtomicUsize,
    /// Size of the stream of jobs: none larger ever leaves.
    pub(crate) stream_max_bytes: usize,
    pub(crate) cancels: crate::control::Cancels,
    pub(crate) outputs: Arc<dyn Outputs>,
    pub(crate) keys: crate::keys::Keys,
    pub(crate) watches: Arc<Semaphore>,
    /// Jobs by state, as counted last.
    pub(crate) counts: Counts,
    /// How fast queues move, as counted last.
    pub(crate) rates: Rates,
    /// Which queues are paused.
    pub(crate) pauses: Pauses,
    pub(crate) board: Board,
    /// When the links of sites were up.
    pub(crate) links: Links,
    /// Whose payloads are sensitive.
    pub(crate) marks: Marks,
    pub(crate) opening: tokio::sync::watch::Sender<Opening>,
    pub(crate) stopping: tokio_util::sync::CancellationToken,
}

/// Longest wait of `GetJob`.
pub const WAIT_MAX: Duration = Duration::from_secs(60);
/// Most items of a page that may be asked for.
pub const PAGE_MAX: u32 = 1_000;
/// Page when none was asked for.
pub const PAGE_DEFAULT: u32 = 100;
/// Waits and watches at once (WATCHES_MAX).
pub const WATCHES_MAX_DEFAULT: usize = 10_000;

/// A page of a listing.
#[derive(Debug)]
pub struct Page<T> {
    /// Up to the limit that was asked for: jobs, letters and operations newest first, schedules and workers by name.
    pub items: Vec<T>,
    /// Give it back to get the next page; `None` on the last.
    pub next: Option<String>,
}

/// What a submission came to.
#[derive(Debug)]
pub struct SubmitAnswer {
    /// The job, as stored.
    pub job: Job,
    /// False when the same submission was stored before.
    pub created: bool,
}

/// Reads offloaded outputs from where workers put them.
#[async_trait::async_trait]
pub trait Outputs: Send + Sync + 'static {
    /// The bytes as a stream of chunks.
    async fn open(&self, output: &agentforge_proto::bus::OutputRef) -> Result<OutputStream, Error>;
}

/// Chunks of an output.
pub type OutputStream = std::pin::Pin<Box<dyn futures_util::Stream<Item = std::io::Result<bytes::Bytes>> + Send>>;

impl App {
    pub(crate) fn new(inner: Inner) -> Self {
        Self(Arc::new(inner), Scopes::ALL)
    }

    /// The database behind it; only this module asks it.
    fn store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }

    /// The mission whose jobs are taken.
    pub fn mission(&self) -> &Mission {
        &self.0.limits.mission_default
    }

    /// What attempts are signed with.
    pub fn keys(&self) -> &crate::keys::Keys {
        &self.0.keys
    }

    /// The queues that there are.
    pub fn queues(&self) -> &Queues {
        &self.0.queues
    }

    /// Waits a little while the database is being opened, and refuses while it is unavailable.
    ///
    /// # Errors
    /// `unavailable`, with what keeps it.
    pub async fn opened(&self) -> Result<(), Error> {
        if *self.0.opening.borrow() == Opening::Open {
            return Ok(());
        }
        let mut opening = self.0.opening.subscribe();
        let decided = async { opening.wait_for(|o| !matches!(o, Opening::UnderWay)).await.map(|o| o.clone()) };
        let why = match tokio::time::timeout(OPENING_MAX, decided).await {
            Ok(Ok(Opening::Open)) => return Ok(()),
            Ok(Ok(Opening::Away(why))) => why,
            _ => "it is being opened".to_owned(),
        };
        let message = format!("the database is not open yet: {why}; nothing was stored, try again");
        Err(Error::new(Code::Unavailable, message).retry_after(Duration::from_secs(1)))
    }

    /// Says how far the opening of the database is.
    pub(crate) fn set_opening(&self, opening: Opening) {
        self.0.opening.send_replace(opening);
    }

    pub(crate) fn watchers(&self) -> &JobWatchers {
        &self.0.watchers
    }

    /// Fires when the service is stopping: long answers end then.
    pub fn stopping(&self) -> &tokio_util::sync::CancellationToken {
        &self.0.stopping
    }

    /// The state of the objectives.
    pub fn board(&self) -> &Board {
        &self.0.board
    }

    /// The links of sites.
    pub(crate) fn links(&self) -> &Links {
        &self.0.links
    }

    /// What submissions may ask for, with the server's max_payload taken into account.
    pub fn limits(&self) -> Limits {
        Limits { args_max_bytes: self.0.args_max_bytes.load(Ordering::Relaxed), ..self.0.limits.clone() }
    }

    /// Takes into account how many jobs the workers present run at once.
    pub(crate) fn set_slots(&self, slots: usize) {
        self.0.backlog.set_slots(slots);
    }

    /// Takes a new max_payload of the NATS server into account.
    pub fn set_max_payload(&self, bytes: usize) {
        let bytes = bytes.min(self.0.stream_max_bytes);
        self.0.args_max_bytes.store(crate::admission::args_max_bytes(bytes), Ordering::Relaxed);
    }

    /// One worker.
    ///
    /// # Errors
    /// `not_found`, `unavailable`.
    pub async fn agent(&self, id: &str) -> Result<Agent, Error> {
        let id = AgentId::new(id).map_err(|e| Error::field("id", e.to_string()))?;
        self.0.store.agent(&id).await?.ok_or_else(|| Error::not_found("agent", id))
    }

    /// Workers, by id.
    ///
    /// # Errors
    /// `invalid_argument`, `unavailable`.
    pub async fn agents(&self, mission: Option<&str>, limit: u32, cursor: Option<&str>) -> Result<Page<Agent>, Error> {
        let mission = mission
            .filter(|m| !m.is_empty())
            .map(|m| Mission::new(m).map_err(|e| Error::field("mission", e.to_string())))
            .transpose()?;
        let limit = page_limit(limit)?;
        let items = self.0.store.agents(mission.as_ref(), cursor.filter(|c| !c.is_empty()), limit + 1).await?;
        Ok(page(items, limit, |a| a.id.to_string()))
    }
}

pub(crate) fn page_limit(limit: u32) -> Result<u32, Error> {
    match limit {
        0 => Ok(PAGE_DEFAULT),
        n if n <= PAGE_MAX => Ok(n),
        n => {
            Err(Error::field("limit", format!("limit is {n}; at most {PAGE_MAX} are allowed: page on with the cursor")))
        }
    }
}

/// Cuts a page out of `limit + 1` rows.
pub(crate) fn page<T>(mut items: Vec<T>, limit: u32, cursor: impl Fn(&T) -> String) -> Page<T> {
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next = if more { items.last().map(cursor) } else { None };
    Page { items, next }
}
