//! What an issuer's tokens must say, and what becomes of their claims.

use crate::{
    principal::{Denied, JwtFault, Principal},
    role::Role,
    scopes::Scopes,
};
use serde_json::{Map, Value};

/// Longest part of a name that is a claim.
const NAME_CHARS_MAX: usize = 128;

/// An issuer whose tokens are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// As `iss` has it, to the letter.
    pub url: String,
    /// One of the audiences of each token.
    pub audience: String,
    /// How far its clock and ours may differ, seconds.
    pub skew: i64,
    /// Where a token has its caller's groups: names of members, separated by dots.
    pub role_claim: String,
    /// The roles of groups.
    pub roles: Vec<(String, Role)>,
    /// Where a token has its scopes; `None`: all have every scope.
    pub scope_claim: Option<String>,
}

/// What the console's tokens say that they are of.
pub const CONSOLE_ISSUER: &str = "agentforge-console";
/// What they say that they are for.
const CONSOLE_AUDIENCE: &str = "agentforge";
/// How far the clocks of the console and of a service may differ, seconds.
const CONSOLE_SKEW: i64 = 30;

impl Issuer {
    /// The console, whose tokens carry a role by its own name, and the scopes, `*` for everything.
    pub fn console() -> Self {
        Self {
            url: CONSOLE_ISSUER.to_owned(),
            audience: CONSOLE_AUDIENCE.to_owned(),
            skew: CONSOLE_SKEW,
            role_claim: "roles".to_owned(),
            roles: Role::ALL
                .into_iter()
                .filter(|role| *role != Role::Alerts)
                .map(|role| (role.as_str().to_owned(), role))
                .collect(),
            scope_claim: Some("scope".to_owned()),
        }
    }

    /// The end of a token with these claims, with the skew.
    pub(super) fn check(&self, claims: &Map<String, Value>, now: i64) -> Result<i64, Denied> {
        let is_for_us = match claims.get("aud") {
            Some(Value::String(one)) => *one == self.audience,
            Some(Value::Array(many)) => many.iter().any(|one| one.as_str() == Some(&self.audience)),
            _ => false,
        };
        if !is_for_us {
            return Err(Denied::Jwt(JwtFault::Audience));
        }
        let time = |claim: &str| claims.get(claim).map(seconds);
        let Some(Some(ends)) = time("exp") else { return Err(Denied::Jwt(JwtFault::Malformed)) };
        let ends = ends.saturating_add(self.skew);
        if now >= ends {
            return Err(Denied::Expired(self.name(claims).into()));
        }
        for begins in ["nbf", "iat"] {
            match time(begins) {
                None => {}
                Some(Some(from)) if now.saturating_add(self.skew) >= from => {}
                Some(Some(_)) => return Err(Denied::Jwt(JwtFault::NotYet)),
                Some(None) => return Err(Denied::Jwt(JwtFault::Malformed)),
            }
        }
        Ok(ends)
    }

    /// Who it is and what it may do.
    pub(super) fn principal(&self, claims: &Map<String, Value>) -> Result<Principal, JwtFault> {
        let groups = words(at(claims, &self.role_claim));
        let roles = self.roles.iter().filter(|(group, _)| groups.contains(&group.as_str())).map(|(_, role)| *role);
        let role =
            roles.reduce(|a, b| if a.includes(b) || b == Role::Alerts { a } else { b }).ok_or(JwtFault::NoRole)?;
        let scopes = match &self.scope_claim {
            None => Scopes::ALL,
            Some(claim) => {
                let scopes = words(at(claims, claim));
                // Where scopes are asked for, saying nothing is not everything.
                if scopes.is_empty() {
                    return Err(JwtFault::NoScopes);
                }
                Scopes::parse(scopes).map_err(|_| JwtFault::NoScopes)?
            }
        };
        Ok(Principal { name: self.name(claims).into(), role, scopes })
    }

    /// A name that no token of a file has: `@` is not part of theirs.
    fn name(&self, claims: &Map<String, Value>) -> String {
        let subject = text(claims, "sub").or_else(|| text(claims, "client_id")).unwrap_or("unnamed");
        let shown = |c: char| if c.is_ascii_graphic() { c } else { '?' };
        let subject: String = subject.chars().take(NAME_CHARS_MAX).map(shown).collect();
        let host = self.url.split_once("://").map_or(self.url.as_str(), |(_, rest)| rest);
        format!("{subject}@{}", host.split('/').next().unwrap_or(host))
    }
}

/// A claim that is a text.
pub(super) fn text<'c>(claims: &'c Map<String, Value>, claim: &str) -> Option<&'c str> {
    claims.get(claim)?.as_str()
}

/// Seconds since 1970; issuers may write fractions.
fn seconds(value: &Value) -> Option<i64> {
    let fits = |n: f64| n.is_finite() && n.abs() < 1e15;
    value.as_i64().or_else(|| value.as_f64().filter(|n| fits(*n)).map(|n| n.floor() as i64))
}

fn at<'c>(claims: &'c Map<String, Value>, path: &str) -> Option<&'c Value> {
    // A claim may have dots of its own, as those named by URLs have.
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let (first, rest) = path.split_once('.')?;
    rest.split('.').try_fold(claims.get(first)?, |value, name| value.get(name))
}

/// A list, or words with blanks between them.
fn words(value: Option<&Value>) -> Vec<&str> {
    match value {
        Some(Value::String(words)) => words.split_whitespace().collect(),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}
