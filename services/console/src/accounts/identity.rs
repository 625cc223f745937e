//! Who a caller is, for the services behind the console: a short JSON Web Token, made once a minute for each caller.

use super::keys::{AUDIENCE, ISSUER, Keys};
use agentforge_access::{Principal, now};
use serde_json::json;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// How long a token is good, seconds.
const TTL: i64 = 60;
/// A token is used while this much of that is left, seconds: a request may take a while to arrive.
const FRESH: i64 = 30;
/// Callers that are remembered.
const CALLERS_MAX: usize = 10_000;

/// What says to services who a caller is. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Identity {
    keys: Keys,
    made: Arc<Mutex<HashMap<String, (i64, String)>>>,
}

impl Identity {
    /// Signed with these keys.
    pub fn new(keys: Keys) -> Self {
        Self { keys, made: Arc::default() }
    }

    /// The value of `Authorization` for a request of this caller.
    pub fn bearer(&self, caller: &Principal) -> String {
        self.bearer_at(caller, now())
    }

    fn bearer_at(&self, caller: &Principal, now: i64) -> String {
        // Without scopes the console's tokens say that they are for everything.
        let scopes = if caller.scopes.is_all() { "*".to_owned() } else { caller.scopes.to_string() };
        let role = caller.role.as_str();
        let key = format!("{}\n{role}\n{scopes}", caller.name);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bearer)) = made.get(&key).filter(|(ends, _)| ends - FRESH > now) {
            return bearer.clone();
        }
        let claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": &*caller.name, "roles": [role], "scope": scopes,
            "iat": now, "exp": now + TTL,
        });
        let bearer = format!("Bearer {}", self.keys.sign(&claims));
        if made.len() >= CALLERS_MAX {
            made.clear();
        }
        made.insert(key, (now + TTL, bearer.clone()));
        bearer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentforge_access::{Role, Scopes};
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

    #[test]
    fn a_token_says_who_and_is_made_again_before_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::new(Keys::dev(dir.path()).unwrap());
        let alice = Principal { name: "alice".into(), role: Role::Operator, scopes: Scopes::ALL };
        let first = identity.bearer_at(&alice, 1_000);
        assert_eq!(identity.bearer_at(&alice, 1_029), first);
        assert_ne!(identity.bearer_at(&alice, 1_030), first);
        let other = Principal { role: Role::Read, ..alice };
        assert_ne!(identity.bearer_at(&other, 1_000), first, "a new role counts at once");
        let claims = URL_SAFE_NO_PAD.decode(first.split('.').nth(1).unwrap()).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(
            claims,
            json!({"iss": "agentforge-console", "aud": "agentforge", "sub": "alice", "roles": ["operator"], "scope": "*", "iat": 1_000, "exp": 1_060})
        );
    }
}
