//! The metrics that this library records.

use agentforge_metrics::Metric;

/// Why a request is refused, as the label has it.
pub(crate) const REASONS: &[&str] = &[
    "closed",
    "missing",
    "unknown",
    "certificate",
    "expired",
    "role",
    "jwt_malformed",
    "jwt_algorithm",
    "jwt_issuer",
    "jwt_key",
    "jwt_signature",
    "jwt_audience",
    "jwt_not_yet",
    "jwt_revoked",
    "jwt_no_role",
    "jwt_no_scopes",
    "proxy",
    "locked_out",
    "caller_rate",
    "address_rate",
];

/// Requests that were not let in.
pub const REFUSED: Metric = Metric::counter(
    "agentforge_access_refused_total",
    &["reason"],
    "Requests that were not let in: missing, unknown or expired token, a JSON Web Token that is not accepted (jwt_…), headers that disagree about a client certificate (certificate), a role that is too weak (role), a proxy in front of an API without tokens (proxy), an address that is locked after failed logins (locked_out), too many requests of a caller or an address (caller_rate, address_rate).",
)
.of(&[REASONS]);

/// Addresses that are locked.
pub const LOCKED: Metric =
    Metric::gauge("agentforge_access_locked_addresses", &[], "Addresses that are locked now because of failed logins.");

/// Whether the file of tokens is the one in use.
pub const FILE_OK: Metric = Metric::gauge(
    "agentforge_access_tokens_file_ok",
    &[],
    "1 while the tokens of ACCESS_TOKENS_FILE are in use as the file has them, 0 while an earlier content is used because it cannot be read. Only with such a file.",
);

/// When the next token ends.
pub const NEXT_EXPIRY: Metric = Metric::gauge(
    "agentforge_access_next_token_expiry_timestamp_seconds",
    &[],
    "When the next of the tokens ends that are valid now, in seconds since 1970. Only while one of them has an end.",
);

/// Whether the keys of an issuer are fresh.
pub const ISSUER_OK: Metric = Metric::gauge(
    "agentforge_access_issuer_ok",
    &["issuer"],
    "1 if the keys of the issuer could be fetched at the last try, else 0; earlier keys stay in use.",
);

/// All of them, for the recorder and the catalogue.
pub const CATALOGUE: &[Metric] = &[REFUSED, LOCKED, FILE_OK, NEXT_EXPIRY, ISSUER_OK];

#[cfg(test)]
mod tests {
    use super::*;
    use agentforge_access::JwtFault;

    #[test]
    fn every_reason_has_its_series_and_names_follow_the_conventions() {
        assert!(JwtFault::ALL.iter().all(|fault| REASONS.contains(&fault.as_str())));
        assert_eq!(agentforge_metrics::check(&[CATALOGUE]), Vec::<String>::new());
    }
}
