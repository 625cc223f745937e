//! Who may call: what the [`Door`] finds, in the words of this API.
//!
//! What an operation needs is written in `operations`.

use crate::error::{Code, Error};
pub use agentforge_access::Role;
use agentforge_access::{Denied, Principal, Tokens};
use agentforge_config::{Common, Reader, Secret, Setting};
use agentforge_door::{Door, DoorConfig, Refusal, Shown};
use agentforge_runtime::http::ClientCertificate;
use axum::extract::ConnectInfo;
use http::{Extensions, HeaderMap};
use std::net::{IpAddr, SocketAddr};

/// The check of callers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Auth(Door);

impl Auth {
    /// With these settings.
    pub fn new(config: DoorConfig) -> Self {
        Self(Door::new(config))
    }

    /// By the settings: `own` has tokens of this API, in addition to those that every door takes. Faults stay in the
    /// reader.
    pub fn read(reader: &mut Reader<'_>, common: &Common, own: &Setting) -> Self {
        let tokens = reader.opt::<Secret>(own).map(|tokens| Tokens::parse(&tokens));
        let tokens = tokens.transpose().map_err(|problem| reader.fault(own.key, problem.to_string()));
        Self::new(DoorConfig::read(reader, common, tokens.ok().flatten().unwrap_or_default(), own))
    }

    /// Every caller may do everything. Only for listeners that strangers cannot reach.
    pub fn open() -> Self {
        Self::new(DoorConfig::open())
    }

    /// The door, for its upkeep.
    pub fn door(&self) -> Door {
        self.0.clone()
    }

    /// Whether no tokens are asked for.
    pub fn is_open(&self) -> bool {
        self.0.is_open()
    }

    /// Lets a request pass that may do what `needed` allows, and says who makes it.
    ///
    /// # Errors
    /// `unauthenticated` without a valid token, `permission_denied` when its role is too weak or no token is asked for
    /// and it came through a proxy, `too_many_requests` with a wait; and who it is, of a caller that is known.
    pub async fn admit(
        &self,
        headers: &HeaderMap,
        extensions: &Extensions,
        needed: Role,
    ) -> Result<Principal, (Error, Option<Principal>)> {
        let certificate = extensions.get::<ClientCertificate>().map_or(&[][..], ClientCertificate::names);
        let shown = Shown::new(peer(extensions), headers).with_certificate(certificate);
        self.0.admit(&shown, needed).await.map_err(|refusal| {
            let known = if let Refusal::Denied(Denied::Role(caller)) = &refusal { Some(caller.clone()) } else { None };
            (in_words(&refusal, needed), known)
        })
    }

    /// The address that a request comes from: the peer's, or what a trusted proxy says.
    pub fn address(&self, headers: &HeaderMap, extensions: &Extensions) -> Option<IpAddr> {
        peer(extensions).map(|peer| self.0.client(peer, headers))
    }
}

/// The peer's address, as either server notes it.
fn peer(extensions: &Extensions) -> Option<IpAddr> {
    extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip())
}

fn in_words(refusal: &Refusal, needed: Role) -> Error {
    let (code, message) = match refusal {
        Refusal::Denied(Denied::Missing | Denied::Closed) => {
            let words = "a token is needed (send the header Authorization: Bearer <token>), or a client certificate that is known";
            (Code::Unauthenticated, words.to_owned())
        }
        Refusal::Denied(Denied::Unknown) => (Code::Unauthenticated, "the bearer token is not known".to_owned()),
        Refusal::Denied(Denied::Certificate) => {
            (Code::Unauthenticated, "the proxy's headers do not agree about the client's certificate".to_owned())
        }
        Refusal::Denied(Denied::Expired(name)) => {
            (Code::Unauthenticated, format!("the token {name} has expired; a new one is needed"))
        }
        Refusal::Denied(Denied::Jwt(fault)) if fault.is_without_rights() => {
            (Code::PermissionDenied, fault.in_words().to_owned())
        }
        Refusal::Denied(Denied::Jwt(fault)) => (Code::Unauthenticated, fault.in_words().to_owned()),
        Refusal::Denied(Denied::Role(caller)) => {
            let (needed, has, name) = (needed.as_str(), caller.role.as_str(), &caller.name);
            let message = format!("this needs the role {needed}; the token {name} has the role {has}");
            (Code::PermissionDenied, message)
        }
        Refusal::Proxy => (Code::PermissionDenied, format!("{refusal}; set API_TOKENS or ACCESS_TOKENS_FILE")),
        Refusal::LockedOut(_) | Refusal::CallerRate(_) | Refusal::AddressRate(_) => {
            (Code::TooManyRequests, refusal.to_string())
        }
    };
    let error = Error::new(code, message);
    match refusal.retry_after() {
        Some(wait) => error.retry_after(wait),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentforge_access::Guard;
    use http::HeaderValue;
    use std::time::Duration;

    fn auth() -> Auth {
        let tokens = Tokens::parse(&"dash:viewer:0123456789abcdef".to_owned().into()).unwrap();
        Auth::new(DoorConfig { guard: Guard::Tokens(tokens), ..DoorConfig::open() })
    }

    async fn admit(auth: &Auth, header: Option<&'static str>, needed: Role) -> Result<Principal, Error> {
        let header = header.map(|text| (http::header::AUTHORIZATION, HeaderValue::from_static(text)));
        auth.admit(&HeaderMap::from_iter(header), &Extensions::new(), needed).await.map_err(|(error, _)| error)
    }

    #[tokio::test]
    async fn refusals_have_their_codes_and_say_what_is_needed() {
        let auth = auth();
        assert_eq!(&*admit(&auth, Some("Bearer 0123456789abcdef"), Role::Read).await.unwrap().name, "dash");
        for (header, part) in [(None, "Authorization: Bearer"), (Some("Bearer wrong"), "not known")] {
            let error = admit(&auth, header, Role::Read).await.unwrap_err();
            assert_eq!(error.code, Code::Unauthenticated, "{header:?}");
            assert!(error.message.contains(part), "{}", error.message);
        }
        let error = admit(&auth, Some("Bearer 0123456789abcdef"), Role::Admin).await.unwrap_err();
        assert_eq!(error.code, Code::PermissionDenied);
        assert!(error.message.contains("the role admin; the token dash has the role viewer"), "{}", error.message);
        assert_eq!(&*admit(&Auth::open(), None, Role::Admin).await.unwrap().name, "anyone");
    }

    #[test]
    fn who_has_to_wait_is_told_for_how_long() {
        let error = in_words(&Refusal::LockedOut(Duration::from_millis(1_200)), Role::Read);
        assert_eq!((error.code, error.retry_after), (Code::TooManyRequests, Some(Duration::from_secs(2))));
        assert!(error.message.contains("ACCESS_LOCKOUT_AFTER"), "{}", error.message);
        let error = in_words(&Refusal::Denied(Denied::Expired("ci".into())), Role::Read);
        assert_eq!((error.code, error.retry_after), (Code::Unauthenticated, None));
    }
}
