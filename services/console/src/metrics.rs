//! What the console counts. Names and labels are an interface: `docs/METRICS.md` is made from here.

use agentforge_metrics::Metric;

/// How a login ends.
pub(crate) const LOGIN_REASONS: &[&str] =
    &["ok", "credentials", "locked_out", "rate", "busy", "once", "oidc", "unavailable"];
/// How a renewal ends.
pub(crate) const REFRESH_RESULTS: &[&str] = &["ok", "reused", "concurrent", "ended", "invalid", "rate"];
/// What has a rate.
pub(crate) const LIMITED: &[&str] = &["login", "refresh", "once", "oidc", "password", "api"];

/// Logins.
pub const LOGINS: Metric = Metric::counter(
    "auth_login_total",
    &["result", "reason"],
    "Logins: result ok or refused; reason ok (by password), once (a one-time link), oidc, or why it was refused: credentials (unknown user, wrong password or link, disabled user), locked_out, rate, busy (too many at once), unavailable (database).",
)
.of(&[&["ok", "refused"], LOGIN_REASONS]);
/// Renewals.
pub const REFRESHES: Metric = Metric::counter(
    "auth_refresh_total",
    &["result"],
    "Renewals of a session: ok, reused (an old refresh token: the session is revoked), concurrent (another tab was faster), ended (expired, revoked or disabled), invalid (not one of ours), rate.",
)
.of(&[REFRESH_RESULTS]);
/// Lockouts.
pub const LOCKOUTS: Metric =
    Metric::counter("auth_lockouts_total", &[], "Pauses that began for an address or a user after failed logins.");
/// Rates.
pub const RATE_BLOCKED: Metric = Metric::counter(
    "auth_rate_limit_block_total",
    &["endpoint"],
    "Requests refused because their address or user makes too many (CONSOLE_RATE).",
)
.of(&[LIMITED]);
/// Sessions.
pub const SESSIONS: Metric = Metric::gauge("auth_sessions", &[], "Sessions that are neither over nor revoked.");

/// All of them.
pub const METRICS: &[Metric] = &[LOGINS, REFRESHES, LOCKOUTS, RATE_BLOCKED, SESSIONS];

/// Makes every series there from the start.
pub(crate) fn begin() {
    LOGINS.add(&["ok", "ok"], 0);
    LOGINS.add(&["refused", "credentials"], 0);
    REFRESH_RESULTS.iter().for_each(|result| REFRESHES.add(&[result], 0));
    LOCKOUTS.add(&[], 0);
    LIMITED.iter().for_each(|endpoint| RATE_BLOCKED.add(&[endpoint], 0));
    SESSIONS.set(&[], 0.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_sound() {
        assert_eq!(agentforge_metrics::check(&[METRICS]), Vec::<String>::new());
    }
}
