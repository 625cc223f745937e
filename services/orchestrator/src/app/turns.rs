//! Turns of schedules: the tick that takes those that are due, those that waited, and those that somebody wants now.
//!
//! Every step is one transaction that checks whether things still are as they were read. So two replicas take a turn
//! once, and a process that is killed between two steps leaves the turn to the next tick.

use super::App;
use crate::admission::{JobRequest, admit};
use crate::caller::Caller;
use crate::cron::Clockwork;
use crate::error::{Code, Error};
use crate::metrics;
use crate::model::{NewJob, Schedule};
use crate::store::{Act, CommitContext, Fired, Firing, Slot};
use crate::turns::{self, Overlap, SKEW_MAX, Skip, SkipReason, is_too_late, plan};
use agentforge_audit::Entry;
use agentforge_message_id::JobId;
use agentforge_proto::time::Micros;
use sha2::{Digest, Sha256};
use tracing::{error, info, warn};

/// Schedules read in one tick.
const TICK_MAX: u32 = 100;
/// Schedules read at once when the clock was set back.
const PAGE: u32 = 100;
/// Turns that one schedule takes in one tick, when it makes up for many.
const TURNS_A_TICK: usize = 10;
/// Longest key of a run that is asked for, bytes; it becomes part of the job's.
const KEY_MAX_BYTES: usize = 128;

/// A run that somebody asked for.
#[derive(Clone, Debug)]
pub struct RunNow {
    /// The schedule after it.
    pub schedule: Schedule,
    /// Its job; `None` while it waits for an earlier one.
    pub job: Option<JobId>,
}

impl App {
    /// Makes the jobs of due turns; returns how many. A turn is taken by one replica.
    ///
    /// # Errors
    /// `unavailable`: the next tick tries again.
    pub async fn tick_schedules(&self, now: Micros, ctx: CommitContext<'_>) -> Result<usize, Error> {
        let mut fired = 0;
        for s in self.0.store.waiting_schedules(TICK_MAX).await? {
            fired += or_next(&s, self.take_waiting(&s, now, ctx).await)?;
        }
        for s in self.0.store.due_schedules(now, TICK_MAX).await? {
            fired += or_next(&s, self.take_all_due(s.clone(), now, ctx).await)?;
        }
        Ok(fired)
    }

    /// Plans again what a clock that was ahead planned: its turns come a second time. Says how many schedules
    /// there were. A step that this process did not see itself is believed only if the database's clock agrees: of
    /// two orchestrators on one database, the other one's clock may be the wrong one.
    ///
    /// # Errors
    /// `unavailable`: then it is to be called again.
    pub async fn rewind_schedules(&self, now: Micros, seen: bool) -> Result<usize, Error> {
        let shown = if seen { None } else { self.0.store.clock().await? };
        if let Some(ahead) = shown.map(|theirs| theirs.since(now)).filter(|ahead| *ahead > SKEW_MAX) {
            warn!(seconds = ahead.as_secs(), "the clock is behind the database's; schedules stay as planned");
            return Ok(0);
        }
        let mut rewound = 0;
        let mut after = None;
        loop {
            let page = self.0.store.schedules(after.as_deref(), PAGE).await?;
            for s in &page {
                rewound += usize::from(self.rewind(s, now).await?);
            }
            match page.last() {
                Some(last) if page.len() == PAGE as usize => after = Some(last.name.clone()),
                _ => return Ok(rewound),
            }
        }
    }

    async fn rewind(&self, s: &Schedule, now: Micros) -> Result<bool, Error> {
        let Some(planned) = s.next_run_at.filter(|planned| !s.paused && *planned > now) else { return Ok(false) };
        // One that cannot be read is reported when its turn comes.
        let Ok(clock) = Clockwork::stored(&s.cron, &s.time_zone) else { return Ok(false) };
        let Some(next) = turns::rewound(&clock, planned, now) else { return Ok(false) };
        let rewound = self.0.store.rewind_schedule(s.id, planned, Some(next)).await?;
        if rewound {
            warn!(schedule = %s.id, name = s.name, planned = %planned.timestamp(), next = %next.timestamp(),
                "clock set back; turns of a schedule occur again");
        }
        Ok(rewound)
    }

    async fn take_waiting(&self, s: &Schedule, now: Micros, ctx: CommitContext<'_>) -> Result<usize, Error> {
        let Some(turn) = s.waiting_turn else { return Ok(0) };
        let slot = Slot::Waiting(turn);
        let taken = if is_too_late(turn, s.deadline, now) {
            let detail = "its deadline passed while it waited for the turn before";
            self.pass(s, slot, vec![Skip::one(turn, SkipReason::TooLate, detail)], ctx).await?
        } else {
            self.take(s, slot, turn, vec![], ctx).await?
        };
        Ok(usize::from(matches!(taken, Fired::Done(Some(_)))))
    }

    async fn take_all_due(&self, mut s: Schedule, now: Micros, ctx: CommitContext<'_>) -> Result<usize, Error> {
        let mut fired = 0;
        for _ in 0..TURNS_A_TICK {
            let Some(due) = s.next_run_at.filter(|due| *due <= now && !s.paused) else { break };
            let taken = self.take_due(&s, due, now, ctx).await?;
            fired += usize::from(matches!(taken, Fired::Done(Some(_))));
            match self.0.store.schedule(s.id).await? {
                Some(after) if matches!(taken, Fired::Done(_)) => s = after,
                _ => break,
            }
        }
        Ok(fired)
    }

    async fn take_due(&self, s: &Schedule, due: Micros, now: Micros, ctx: CommitContext<'_>) -> Result<Fired, Error> {
        let clock = match Clockwork::stored(&s.cron, &s.time_zone) {
            Ok(clock) => clock,
            Err(e) => {
                error!(schedule = %s.id, name = s.name, problem = e.message, "a schedule cannot be read and stops");
                let skip = Skip::one(due, SkipReason::Refused, e.message);
                return self.pass(s, Slot::Due { expected: due, next: None }, vec![skip], ctx).await;
            }
        };
        let plan = plan(&clock, s.catch_up, s.deadline, due, now);
        let slot = Slot::Due { expected: due, next: plan.next };
        match plan.turn {
            Some(turn) => self.take(s, slot, turn, plan.skipped, ctx).await,
            None => self.pass(s, slot, plan.skipped, ctx).await,
        }
    }

    /// Takes a turn, as the overlap policy has it.
    async fn take(
        &self,
        s: &Schedule,
        slot: Slot,
        turn: Micros,
        mut skipped: Vec<Skip>,
        ctx: CommitContext<'_>,
    ) -> Result<Fired, Error> {
        let key = turns::key(s.id, turn, s.rewinds, matches!(slot, Slot::Waiting(_)));
        let job = match self.job_of(s, key, turn, ctx.now) {
            Ok(job) => job,
            Err(e) => {
                skipped.push(Skip::one(turn, SkipReason::Refused, e.message));
                return self.pass(s, slot, skipped, ctx).await;
            }
        };
        match self.start(s, slot, (turn, job), &skipped, None, ctx).await? {
            Fired::Busy(open) if s.overlap == Overlap::Queue && s.waiting_turn.is_none() => {
                info!(schedule = %s.id, name = s.name, turn = %turn.timestamp(), job = %open, "a turn waits for the previous one");
                self.fire(s, Firing { id: s.id, slot, act: Act::Wait(turn), skipped, entry: None }, ctx).await
            }
            // Another turn may have been started meanwhile, or the cancel did not go through: the next tick sees.
            Fired::Busy(_) if s.overlap == Overlap::Replace => Ok(Fired::Lost),
            Fired::Busy(_) if matches!(slot, Slot::Waiting(_)) => Ok(Fired::Lost),
            Fired::Busy(open) => {
                skipped.push(Skip::one(turn, SkipReason::Overlap, overlapped(s, open)));
                self.pass(s, slot, skipped, ctx).await
            }
            taken => Ok(taken),
        }
    }

    /// Starts a turn's job. With `replace`, an earlier one is cancelled for it.
    async fn start(
        &self,
        s: &Schedule,
        slot: Slot,
        (turn, job): (Micros, NewJob),
        skipped: &[Skip],
        entry: Option<Entry>,
        ctx: CommitContext<'_>,
    ) -> Result<Fired, Error> {
        // A waiting turn waits for the end of the previous one, even if the policy has changed since.
        let alone = s.overlap != Overlap::Allow || matches!(slot, Slot::Waiting(_));
        let own = job.id;
        let firing = Firing { id: s.id, slot, act: Act::Start { turn, job, alone }, skipped: skipped.to_vec(), entry };
        let taken = self.fire(s, firing.clone(), ctx).await?;
        let Fired::Busy(open) = taken else { return Ok(taken) };
        if s.overlap != Overlap::Replace || open == own {
            return Ok(taken);
        }
        info!(schedule = %s.id, name = s.name, turn = %turn.timestamp(), job = %open, "a turn replaces the previous one");
        match self.cancel(&Caller::itself("ReplaceTurn"), &open.to_string()).await {
            Ok(_) => {}
            // It ended by itself, or was deleted.
            Err(e) if matches!(e.code, Code::FailedPrecondition | Code::NotFound) => {}
            Err(e) => return Err(e),
        }
        self.fire(s, firing, ctx).await
    }

    async fn pass(&self, s: &Schedule, slot: Slot, skipped: Vec<Skip>, ctx: CommitContext<'_>) -> Result<Fired, Error> {
        self.fire(s, Firing { id: s.id, slot, act: Act::Pass, skipped, entry: None }, ctx).await
    }

    /// One transaction, and its notifications.
    async fn fire(&self, s: &Schedule, firing: Firing, ctx: CommitContext<'_>) -> Result<Fired, Error> {
        let turn = if let Act::Start { turn, .. } = &firing.act { Some(*turn) } else { None };
        let skipped = firing.skipped.clone();
        let taken = self.0.store.fire_schedule(firing, ctx).await?;
        if let Fired::Done(made) = &taken {
            for skip in skipped {
                metrics::SCHEDULE_TURNS_SKIPPED.add(&[skip.reason.as_str()], u64::from(skip.count));
                warn!(schedule = %s.id, name = s.name, turn = %skip.turn.timestamp(), turns = skip.count,
                    reason = skip.reason.as_str(), detail = skip.detail, "turns of a schedule are skipped");
            }
            if let (Some(turn), Some(job)) = (turn, made) {
                info!(schedule = %s.id, name = s.name, turn = %turn.timestamp(), %job, "schedule fired");
            }
        }
        Ok(taken)
    }

    fn job_of(&self, s: &Schedule, key: String, turn: Micros, now: Micros) -> Result<NewJob, Error> {
        let template: JobRequest =
            serde_json::from_str(&s.template).map_err(|e| Error::new(Code::Internal, e.to_string()))?;
        let mut input = template.of_turn(key);
        input.deadline = s.deadline.map(|deadline| turn.plus(deadline));
        input.submitted_by.clone_from(&s.created_by);
        let job = admit(input, &self.limits(), now, Some((s.id, turn)))?;
        self.0.queues.admit(&job.queue)?;
        Ok(job)
    }

    /// Runs a schedule now, whether its turn has come or not, and paused or not. The overlap policy holds. A run
    /// that is asked for again under the same key is the first one.
    ///
    /// # Errors
    /// As `App::schedule`; `failed_precondition` when an earlier turn is not over and the policy is to skip, or another one
    /// waits already; `invalid_argument` when its job is not accepted any more.
    pub async fn run_schedule(&self, caller: &Caller, id: &str, key: &str) -> Result<RunNow, Error> {
        let run = self.try_run_schedule(caller, id, key).await;
        self.recorded(caller, "schedule", Some(id), run).await
    }

    async fn try_run_schedule(&self, caller: &Caller, id: &str, key: &str) -> Result<RunNow, Error> {
        let ctx = self.0.committer.context(Micros::now());
        if key.len() > KEY_MAX_BYTES || key.contains('\0') {
            let rule = format!("idempotency_key must have at most {KEY_MAX_BYTES} bytes and no NUL");
            return Err(Error::field("idempotency_key", rule));
        }
        let s = self.schedule(id).await?;
        let turn = ctx.now;
        let key = if key.is_empty() { turn.0.to_string() } else { key.to_owned() };
        let mut job = self.job_of(&s, format!("schedule:{}:run:{key}", s.id), turn, ctx.now)?;
        let own = run_id(&s, &key);
        let spec = std::sync::Arc::make_mut(&mut job.spec);
        spec.id = own;
        spec.submitted_by = Some(caller.name().to_owned());
        let entry = caller.entry().about("schedule", Some(s.id.to_string()));
        if self.0.store.job(own).await?.is_some() {
            self.0.committer.record(entry).await?;
            return Ok(RunNow { schedule: s, job: Some(own) });
        }
        self.push_back(&job)?;
        let taken = match self.start(&s, Slot::Now, (turn, job), &[], Some(entry.clone()), ctx).await? {
            Fired::Busy(open) if open == own => Fired::Done(Some(open)),
            Fired::Busy(open) if s.overlap == Overlap::Queue && s.waiting_turn.is_none() => {
                let act = Act::Wait(turn);
                let wait = Firing { id: s.id, slot: Slot::Now, act, skipped: vec![], entry: Some(entry) };
                match self.fire(&s, wait, ctx).await? {
                    Fired::Done(_) => Fired::Done(None),
                    _ => return Err(busy(&s, open)),
                }
            }
            Fired::Busy(open) => return Err(busy(&s, open)),
            taken => taken,
        };
        match taken {
            Fired::Done(job) => {
                metrics::SCHEDULES_FIRED.add(&[], u64::from(job.is_some()));
                Ok(RunNow { schedule: self.schedule(id).await?, job })
            }
            _ => Err(Error::not_found("schedule", s.id)),
        }
    }
}

/// The id of a run's job is derived from its key: a repeated request gets the same job, and cancels nothing.
fn run_id(s: &Schedule, key: &str) -> JobId {
    let digest: [u8; 32] = Sha256::digest(format!("{}:{key}", s.id)).into();
    let (half, _) = digest.split_first_chunk::<16>().expect("a SHA-256 has 32 bytes");
    JobId::from_uuid(uuid::Builder::from_custom_bytes(*half).into_uuid())
}

/// A schedule that cannot be served does not stop the others; an unavailable database stops all.
fn or_next(s: &Schedule, taken: Result<usize, Error>) -> Result<usize, Error> {
    match taken {
        Err(e) if e.code != Code::Unavailable => {
            error!(schedule = %s.id, name = s.name, error = &e as &dyn std::error::Error, "a schedule's turn cannot be taken");
            Ok(0)
        }
        taken => taken,
    }
}

fn overlapped(s: &Schedule, open: JobId) -> String {
    match s.waiting_turn {
        Some(waiting) => format!("job {open} is not over, and the turn of {} waits already", waiting.timestamp()),
        None => format!("job {open} of the turn before is not over"),
    }
}

fn busy(s: &Schedule, open: JobId) -> Error {
    Error::new(Code::FailedPrecondition, format!("{} (overlap {})", overlapped(s, open), s.overlap.as_str()))
}
