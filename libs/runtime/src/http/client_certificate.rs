//! The certificate that a client showed: whether there is one, and the names that it has.

use std::sync::Arc;
use tokio_rustls::rustls::ServerConnection;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

/// Names of one certificate that are taken; further ones are not looked at.
const NAMES_MAX: usize = 16;
/// A longer name is not taken, bytes.
const NAME_BYTES_MAX: usize = 256;

/// The certificate of the client of a connection, which one of our authorities signed. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientCertificate(Option<Arc<[String]>>);

impl ClientCertificate {
    pub(super) fn of(session: &ServerConnection) -> Self {
        let leaf = session.peer_certificates().and_then(|chain| chain.first());
        Self(leaf.map(|leaf| names(leaf).into()))
    }

    /// Whether there is one.
    pub fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Its names: those for hosts (in lower case), URIs and mail addresses, or, without any of these, its common name.
    pub fn names(&self) -> &[String] {
        self.0.as_deref().unwrap_or_default()
    }
}

fn names(leaf: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = parse_x509_certificate(leaf) else { return Vec::new() };
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let alternatives = alternatives.iter().flat_map(|names| &names.value.general_names);
    let mut names: Vec<String> = alternatives
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            GeneralName::URI(name) | GeneralName::RFC822Name(name) => Some((*name).to_owned()),
            _ => None,
        })
        .collect();
    let mut common = certificate.subject().iter_common_name();
    if names.is_empty()
        && let (Some(name), None) = (common.next(), common.next())
    {
        names.extend(name.as_str().ok().map(str::to_owned));
    }
    names.retain(|name| (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic()));
    names.truncate(NAMES_MAX);
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn of(common: &[&str], alternatives: Vec<SanType>) -> Vec<String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for name in common {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        params.subject_alt_names = alternatives;
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        names(certificate.der())
    }

    #[test]
    fn a_certificate_is_known_by_its_alternative_names_and_else_by_its_common_name() {
        let dns = |name: &str| SanType::DnsName(name.to_owned().try_into().unwrap());
        let uri = SanType::URI("spiffe://fleet/CI".to_owned().try_into().unwrap());
        assert_eq!(of(&["ci"], vec![]), ["ci"]);
        assert_eq!(of(&["ci"], vec![dns("CI.example"), uri]), ["ci.example", "spiffe://fleet/CI"]);
        let address = SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
        assert_eq!(of(&["ci"], vec![address]), ["ci"], "an address is no name");
        assert_eq!(of(&["two words"], vec![]), [""; 0]);
        assert_eq!(of(&[&"x".repeat(300)], vec![]), [""; 0]);
        assert_eq!(of(&[], (0..30).map(|n| dns(&format!("h{n}.example"))).collect()).len(), NAMES_MAX);
    }
}
