//! When the worker's client certificate ends, so that an operator sees it before it does.
//!
//! Reads the file only; whether the certificate is trusted is the server's business.

use agentforge_proto::time::Micros;
use std::path::Path;
use tracing::warn;
use x509_parser::pem::parse_x509_pem;

/// The expiry of the certificate in this PEM file; `None` without a file, or when it cannot be read, which is logged:
/// the connection shows whether it works.
pub async fn expiry(file: Option<&Path>) -> Option<Micros> {
    let file = file?;
    let expiry = match tokio::fs::read(file).await {
        Ok(pem) => expiry_of(&pem),
        Err(_) => None,
    };
    if expiry.is_none() {
        warn!(file = %file.display(), "the expiry of the client certificate cannot be read");
    }
    expiry
}

/// The end of the first certificate in PEM text: the leaf comes first.
fn expiry_of(pem: &[u8]) -> Option<Micros> {
    let (_, pem) = parse_x509_pem(pem).ok()?;
    let seconds = pem.parse_x509().ok()?.validity().not_after.timestamp();
    Some(Micros(seconds.checked_mul(1_000_000)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Self-signed, for `worker.test`, until 2036-11-18T00:00:00Z.
    const PEM: &str = include_str!("../tests/fixtures/client.pem");

    #[test]
    fn the_end_of_a_certificate_is_read() {
        let end = expiry_of(PEM.as_bytes()).unwrap();
        assert_eq!(end.timestamp().to_string(), include_str!("../tests/fixtures/client.expires").trim());
        assert_eq!(expiry_of(b"no certificate"), None);
    }
}
