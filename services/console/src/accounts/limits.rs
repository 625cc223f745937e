//! How often logins may be tried: rates of addresses and users, and growing pauses after failures.

use crate::{config::Config, metrics, problem::Problem};
use agentforge_door::{Logins, Rates};
use axum::http::{HeaderValue, StatusCode, header};
use ring::digest;
use std::{
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tracing::warn;

/// Longest name that counts as one, bytes; more of it changes nothing.
const NAME_BYTES_MAX: usize = 128;
/// Lines about failed logins in a second; the others are counted by the metric only.
const LINES_A_SECOND: u32 = 10;

/// A user in the table of failures, known or not: names of any length have one size.
type UserKey = [u8; 32];

/// The limits of logins.
pub struct Limits {
    anonymous: Rates,
    sessions: Rates,
    addresses: Mutex<Logins<IpAddr>>,
    users: Mutex<Logins<UserKey>>,
    lines: Mutex<(Option<Instant>, u32)>,
}

impl std::fmt::Debug for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limits").finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key(user: &str) -> UserKey {
    let mut key = [0; 32];
    key.copy_from_slice(digest::digest(&digest::SHA256, user.as_bytes()).as_ref());
    key
}

impl Limits {
    /// Of these settings.
    pub fn new(config: &Config) -> Self {
        Self {
            anonymous: Rates::new(config.rate, config.rate),
            sessions: Rates::new(config.api_rate, 0),
            addresses: Mutex::new(Logins::new(config.lockout_after)),
            users: Mutex::new(Logins::new(config.lockout_after)),
            lines: Mutex::default(),
        }
    }

    /// Whether one more request without a session may come from this address.
    ///
    /// # Errors
    /// For how long it has to wait.
    pub fn address(&self, endpoint: &'static str, address: IpAddr) -> Result<(), Problem> {
        let checked = self.anonymous.address(address);
        checked.map_err(|wait| blocked(endpoint, wait, "too many requests from this address (CONSOLE_RATE)"))
    }

    /// Whether one more login of this user may be tried.
    ///
    /// # Errors
    /// For how long it has to wait.
    pub fn user(&self, endpoint: &'static str, user: &str) -> Result<(), Problem> {
        let user = &user[..user.floor_char_boundary(NAME_BYTES_MAX)];
        let checked = self.anonymous.caller(&user.into());
        checked.map_err(|wait| blocked(endpoint, wait, "too many logins of this user (CONSOLE_RATE)"))
    }

    /// Whether this user may make one more request with a session.
    ///
    /// # Errors
    /// For how long it has to wait.
    pub fn session(&self, user: &str) -> Result<(), Problem> {
        let checked = self.sessions.caller(&user.into());
        checked.map_err(|wait| blocked("api", wait, "too many requests of this user (CONSOLE_API_RATE)"))
    }

    /// Whether a login may be tried at all now.
    ///
    /// # Errors
    /// For how long it has to wait.
    pub fn may_try(&self, address: IpAddr, user: &str) -> Result<(), Problem> {
        let (now, key) = (Instant::now(), key(user));
        let of_address = locked(&self.addresses).locked(address, now);
        let of_user = {
            let users = locked(&self.users);
            // Strangers who guess do not lock a user out of the place where it works.
            users.locked(key, now).filter(|_| !users.is_known(key, &address.to_string().into(), now))
        };
        match of_address.max(of_user) {
            None => Ok(()),
            Some(wait) => Err(too_many(wait, "locked_out", "too many failed logins (CONSOLE_LOCKOUT_AFTER)")),
        }
    }

    /// A login failed.
    pub fn failed(&self, address: IpAddr, user: &str, how: &'static str) {
        let now = Instant::now();
        let pauses = [locked(&self.addresses).fail(address, now), locked(&self.users).fail(key(user), now)];
        for _ in pauses.iter().flatten() {
            metrics::LOCKOUTS.inc(&[]);
        }
        if self.is_logged(now) {
            let locked_seconds = pauses.into_iter().flatten().max().unwrap_or_default().as_secs();
            // The name may be a password that was typed into the wrong field.
            warn!(%address, how, locked_seconds, "login failed");
        }
    }

    /// A login succeeded.
    pub fn succeeded(&self, address: IpAddr, user: &str) {
        // Where the user comes from is known from now on.
        let _ = locked(&self.users).admit(key(user), &address.to_string().into(), Instant::now());
    }

    /// Forgets what is over.
    pub fn upkeep(&self) {
        self.anonymous.upkeep();
        self.sessions.upkeep();
    }

    fn is_logged(&self, now: Instant) -> bool {
        let mut lines = locked(&self.lines);
        if lines.0.is_none_or(|since| now.duration_since(since) >= Duration::from_secs(1)) {
            *lines = (Some(now), 0);
        }
        lines.1 = lines.1.saturating_add(1);
        lines.1 <= LINES_A_SECOND
    }
}

fn blocked(endpoint: &'static str, wait: Duration, detail: &'static str) -> Problem {
    metrics::RATE_BLOCKED.inc(&[endpoint]);
    too_many(wait, "too_many_requests", detail)
}

fn too_many(wait: Duration, code: &'static str, detail: &'static str) -> Problem {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    Problem::new(StatusCode::TOO_MANY_REQUESTS, code, detail)
        .with(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)))
}
