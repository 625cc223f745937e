//! A call as its handler sees it: which operation, and where the request came from. Turns errors into statuses.

use super::status;
use crate::api::{log_failure, stopping, trace};
use crate::app::App;
use crate::caller::Caller;
use crate::error::{Code, Error};
use agentforge_access::{Principal, Scopes};

/// What a handler knows of its call besides the message.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) operation: &'static str,
    pub(super) origin: trace::Origin,
    scopes: Scopes,
    caller: Option<Caller>,
}

impl Call {
    pub(super) fn of<T>(operation: &'static str, request: &tonic::Request<T>) -> Self {
        // The guard lets no call pass without a caller; without one there is nothing to see.
        let scopes = request.extensions().get::<Principal>().map_or_else(Scopes::none, |caller| caller.scopes.clone());
        let caller = request.extensions().get::<Caller>().cloned();
        Self { operation, origin: trace::Origin::of(request.metadata().as_ref()), scopes, caller }
    }

    /// The application on behalf of the caller, within its scopes.
    pub(super) fn app(&self, app: &App) -> App {
        app.within(&self.scopes)
    }

    /// Who asks: the guard has put it there.
    pub(super) fn caller(&self) -> Result<&Caller, tonic::Status> {
        self.caller.as_ref().ok_or_else(|| self.refuse(&Error::new(Code::Internal, "the call has no caller")))
    }

    pub(super) fn request_id(&self) -> Option<&str> {
        self.origin.request_id.as_deref()
    }

    /// The status of an answer that a stop cuts short. Nothing is wrong: nothing is logged.
    pub(super) fn cut(&self) -> tonic::Status {
        status::of(&stopping(), self.request_id())
    }

    /// The status of a refusal; what is our fault is logged.
    pub(super) fn refuse(&self, e: &Error) -> tonic::Status {
        log_failure(e, self.operation, self.request_id());
        status::of(e, self.request_id())
    }
}
