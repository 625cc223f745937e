//! Why there is no connection, in words for people. Pure.

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// For people: reason, address, settings.
    pub reason: String,
    /// The server is there and refuses who we are: this does not pass by itself.
    pub is_refusal: bool,
}

/// In words for people; `authorities` says whose certificates are trusted. Only kinds come from the client, no causes.
pub(crate) fn trouble(servers: &str, authorities: &str, last: Option<&str>) -> Trouble {
    let is_refusal = last.is_some_and(|e| e.contains("authorization") || e.contains("signing nonce"));
    let reason = match last {
        Some(e) if is_refusal => {
            format!("{servers} refuses the credentials: {e} (NATS_CREDS, NATS_NKEY, or NATS_USER and NATS_PASSWORD)")
        }
        // A handshake that fails is an IO error of the client, too.
        Some(e) if e.contains("TLS") || servers.contains("tls://") => format!(
            "{servers} cannot be reached: {e}; its certificate must be for that name, and signed by {authorities} (NATS_TLS_CA, NATS_URL)"
        ),
        Some(e) => format!("{servers} cannot be reached: {e} (NATS_URL)"),
        None => format!("not connected to {servers} (NATS_URL)"),
    };
    Trouble { reason, is_refusal }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_connection_names_address_reason_and_setting() {
        let cases = [
            (Some("IO error"), false, "nats://a:1 cannot be reached: IO error (NATS_URL)"),
            (Some("authorization violation"), true, "refuses the credentials: authorization violation (NATS_CREDS"),
            (Some("TLS error"), false, "signed by an authority in /etc/ca.pem (NATS_TLS_CA, NATS_URL)"),
            (None, false, "not connected to nats://a:1"),
        ];
        let handshake = trouble("tls://a:1", "an authority in /etc/ca.pem", Some("IO error")).reason;
        assert!(handshake.contains("signed by an authority in /etc/ca.pem (NATS_TLS_CA"), "{handshake}");
        for (error, is_refusal, part) in cases {
            let told = trouble("nats://a:1", "an authority in /etc/ca.pem", error);
            assert_eq!(told.is_refusal, is_refusal, "{told:?}");
            assert!(told.reason.contains(part), "{told:?}");
        }
    }
}
