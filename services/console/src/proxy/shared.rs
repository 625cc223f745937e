//! One question to a service for all who ask the same: a thousand open pages cost a service about as much as ten.
//!
//! Only documents that are the same for every caller of a role, and that no audit log has. Of lists of jobs, whose payloads may be
//! sensitive, the orchestrator says so in each answer. A caller with narrower scopes is answered by itself.

use super::rules::{Service, Sharing};
use agentforge_access::{Principal, Role};
use axum::http::{HeaderMap, Method, request::Parts};
use bytes::Bytes;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{sync::OwnedMutexGuard, time::timeout};

/// How old a document may be: less than the shortest interval of a page, which is 2 s, and so long that any number of
/// overviews asks no more than ten do that refresh every 15 s.
const FRESH: Duration = Duration::from_millis(1_600);
/// Documents that are kept, at most; further questions are asked one by one.
const KEPT_MAX: usize = 64;
/// Larger documents are not kept: all of them together have 16 MiB.
const BYTES_MAX: usize = 256 * 1024;
/// After an answer that is for its caller only, the same path is asked by each for itself for this long.
const OWN_FOR: Duration = Duration::from_secs(60);
/// The header of an answer that is the same for all.
pub(super) const ALIKE: &str = "x-agentforge-alike";
/// How long a caller waits for the answer to another's question before it asks by itself.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    pub(super) service: &'static str,
    pub(super) role: Role,
    /// Path and query.
    pub(super) address: String,
    /// Without the query, where the answer itself says whether it is for all.
    pub(super) asked_of: Option<String>,
}

impl Question {
    /// What a request asks; `None` where its answer is for its caller only.
    pub(super) fn of(service: &Service, request: &Parts, path: &str, caller: &Principal) -> Option<Self> {
        let sharing = service.shares(path);
        let is_shared = request.method == Method::GET && sharing != Sharing::Never && caller.scopes.is_all();
        let address = request.uri.path_and_query().filter(|_| is_shared)?.to_string();
        let asked_of = (sharing == Sharing::WhereAlike).then(|| path.to_owned());
        Some(Self { service: service.name, role: caller.role, address, asked_of })
    }
}

/// A document, and what may go with it.
type Document = (Instant, Bytes, HeaderMap);
type Slot = Arc<tokio::sync::Mutex<Option<Document>>>;

/// The documents of the last moments.
#[derive(Default)]
pub(super) struct Shared {
    /// Those that are for all.
    always: Documents,
    /// Those that say so: there are many of them, and they push none of the others out.
    where_alike: Documents,
    /// Paths whose answer was for its caller only, and since when.
    own: Mutex<HashMap<String, Instant>>,
}

#[derive(Default)]
struct Documents(Mutex<HashMap<Question, Slot>>);

/// What a caller is to do.
pub(super) enum Turn {
    /// There is a document.
    Known(Bytes, HeaderMap),
    /// It asks, for all who wait meanwhile.
    Ask(OwnedMutexGuard<Option<Document>>),
    /// It asks by itself.
    Alone,
}

impl Documents {
    fn slots(&self) -> MutexGuard<'_, HashMap<Question, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, question: &Question) -> Option<Slot> {
        let mut slots = self.slots();
        if let Some(slot) = slots.get(question) {
            return Some(Arc::clone(slot));
        }
        if slots.len() >= KEPT_MAX {
            // Those that are asked now are held by their callers too.
            slots.retain(|_, slot| Arc::strong_count(slot) > 1 || slot.try_lock().is_ok_and(|kept| is_fresh(&kept)));
        }
        (slots.len() < KEPT_MAX).then(|| Arc::clone(slots.entry(question.clone()).or_default()))
    }

    fn forget(&self, service: &str) {
        self.slots().retain(|question, _| question.service != service);
    }
}

impl Shared {
    fn own(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether answers to it were for their callers only, lately.
    fn is_own(&self, question: &Question) -> bool {
        let of = |path| self.own().get(path).is_some_and(|since: &Instant| since.elapsed() < OWN_FOR);
        question.asked_of.as_ref().is_some_and(of)
    }

    /// Waits for the answer to the same question, if it is under way.
    pub(super) async fn turn(&self, question: &Question) -> Turn {
        if self.is_own(question) {
            return Turn::Alone;
        }
        let documents = if question.asked_of.is_some() { &self.where_alike } else { &self.always };
        let Some(slot) = documents.slot(question) else { return Turn::Alone };
        match timeout(WAIT_MAX, slot.lock_owned()).await {
            Ok(kept) => match &*kept {
                Some((_, document, headers)) if is_fresh(&kept) => Turn::Known(document.clone(), headers.clone()),
                // The answer that was waited for was for its caller only: those who waited ask side by side.
                _ if self.is_own(question) => Turn::Alone,
                _ => Turn::Ask(kept),
            },
            Err(_) => Turn::Alone,
        }
    }

    /// Something of a service was changed, and the next caller sees that.
    pub(super) fn forget(&self, service: &str) {
        self.always.forget(service);
        self.where_alike.forget(service);
    }

    /// Keeps an answer for those who wait, if it is for them too.
    pub(super) fn keep(
        &self,
        question: &Question,
        slot: OwnedMutexGuard<Option<Document>>,
        document: &Bytes,
        headers: &HeaderMap,
        is_alike: bool,
    ) {
        match &question.asked_of {
            // Before the slot is given back: those who wait for it then ask for themselves.
            Some(path) if !is_alike => _ = self.own().insert(path.clone(), Instant::now()),
            _ => keep(slot, document, headers),
        }
    }
}

fn keep(mut slot: OwnedMutexGuard<Option<Document>>, document: &Bytes, headers: &HeaderMap) {
    if document.len() > BYTES_MAX {
        return;
    }
    let mut headers = headers.clone();
    // It names one caller's request.
    headers.remove("x-request-id");
    *slot = Some((Instant::now(), document.clone(), headers));
}

fn is_fresh(kept: &Option<Document>) -> bool {
    kept.as_ref().is_some_and(|(at, ..)| at.elapsed() < FRESH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentforge_access::Scopes;
    use axum::http::Request;

    fn question(address: &str, role: Role) -> Question {
        Question { service: "orchestrator", role, address: address.into(), asked_of: None }
    }

    #[tokio::test]
    async fn one_asks_and_the_others_have_its_answer_until_something_changes() {
        let shared = Shared::default();
        let of = |role| question("/v1/queues", role);
        let Turn::Ask(slot) = shared.turn(&of(Role::Read)).await else { panic!("the first asks") };
        let asked = of(Role::Read);
        let waiting = shared.turn(&asked);
        keep(slot, &Bytes::from_static(b"{}"), &HeaderMap::new());
        assert!(matches!(waiting.await, Turn::Known(document, _) if document == "{}"));
        assert!(matches!(shared.turn(&of(Role::Admin)).await, Turn::Ask(_)), "another role has another answer");
        shared.forget("broadcaster");
        assert!(matches!(shared.turn(&of(Role::Read)).await, Turn::Known(..)));
        shared.forget("orchestrator");
        assert!(matches!(shared.turn(&of(Role::Read)).await, Turn::Ask(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_asks_alone_and_a_failed_question_is_asked_again() {
        let shared = Shared::default();
        let Turn::Ask(slot) = shared.turn(&question("/v1/slo", Role::Read)).await else { panic!("the first asks") };
        assert!(matches!(shared.turn(&question("/v1/slo", Role::Read)).await, Turn::Alone));
        drop(slot);
        assert!(matches!(shared.turn(&question("/v1/slo", Role::Read)).await, Turn::Ask(_)));
    }

    #[test]
    fn only_callers_who_may_see_everything_share() {
        let service = super::super::rules::SERVICES.iter().find(|service| service.name == "orchestrator").unwrap();
        let of = |method: &str, scopes: Scopes| {
            let request =
                Request::builder().method(method).uri("/api/orchestrator/v1/queues?limit=5").body(()).unwrap();
            let caller = Principal { name: "vera".into(), role: Role::Read, scopes };
            Question::of(service, &request.into_parts().0, "/v1/queues", &caller)
        };
        assert_eq!(of("GET", Scopes::ALL), Some(question("/api/orchestrator/v1/queues?limit=5", Role::Read)));
        assert_eq!(of("POST", Scopes::ALL), None);
        assert_eq!(of("GET", Scopes::parse(["queue:hr"]).unwrap()), None, "its answer may hold less");
    }

    #[tokio::test]
    async fn a_list_of_jobs_is_shared_only_where_its_answer_says_that_it_is_for_all() {
        let shared = Shared::default();
        let of = |address: &str| Question { asked_of: Some("/v1/jobs".into()), ..question(address, Role::Read) };
        let (document, headers) = (Bytes::from_static(b"{}"), HeaderMap::new());
        let Turn::Ask(slot) = shared.turn(&of("/v1/jobs?limit=5")).await else { panic!("the first asks") };
        shared.keep(&of("/v1/jobs?limit=5"), slot, &document, &headers, true);
        assert!(matches!(shared.turn(&of("/v1/jobs?limit=5")).await, Turn::Known(..)));
        let Turn::Ask(slot) = shared.turn(&of("/v1/jobs?limit=6")).await else { panic!("another question") };
        let asked = of("/v1/jobs?limit=6");
        let waiting = shared.turn(&asked);
        shared.keep(&asked, slot, &document, &headers, false);
        assert!(matches!(waiting.await, Turn::Alone), "who waited asks by itself");
        assert!(matches!(shared.turn(&of("/v1/jobs?limit=7")).await, Turn::Alone), "so does whoever comes after");
        assert!(matches!(shared.turn(&question("/v1/queues", Role::Read)).await, Turn::Ask(_)), "others share on");
    }

    #[tokio::test]
    async fn a_large_document_is_not_kept() {
        let shared = Shared::default();
        let Turn::Ask(slot) = shared.turn(&question("/v1/agents", Role::Read)).await else { panic!("the first asks") };
        keep(slot, &Bytes::from(vec![b' '; BYTES_MAX + 1]), &HeaderMap::new());
        assert!(matches!(shared.turn(&question("/v1/agents", Role::Read)).await, Turn::Ask(_)));
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded() {
        let shared = Shared::default();
        let mut held = Vec::new();
        for n in 0..KEPT_MAX {
            let Turn::Ask(slot) = shared.turn(&question(&n.to_string(), Role::Read)).await else { panic!("{n}") };
            held.push(slot);
        }
        assert!(matches!(shared.turn(&question("more", Role::Read)).await, Turn::Alone));
        held.clear();
        assert!(matches!(shared.turn(&question("more", Role::Read)).await, Turn::Ask(_)));
        assert!(shared.always.slots().len() <= KEPT_MAX);
    }
}
