//! What all handlers share.

use super::problem::Problem;
use crate::app::App;
use crate::error::{Code, Error};
use agentforge_access::Principal;
use axum::extract::FromRequestParts;
use http::request::Parts;

/// What handlers work with. As an argument of a handler it acts for the request's caller, within its scopes.
#[derive(Clone)]
pub(crate) struct Api {
    pub(super) app: App,
}

impl FromRequestParts<Api> for Api {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let Some(caller) = parts.extensions.get::<Principal>() else {
            // The edge lets no request pass without one.
            return Err(Error::new(Code::Internal, "the request has no caller").into());
        };
        Ok(Self { app: api.app.within(&caller.scopes) })
    }
}
