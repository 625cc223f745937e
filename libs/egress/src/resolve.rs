//! From a name to the addresses that may be called.
//!
//! The one place where names are resolved, for every client of this crate. Its results are checked, and callers connect
//! to exactly those: there is no second lookup between the check and the connection, so a name cannot lead elsewhere in
//! between.

use crate::policy::{Policy, Refusal};
use std::{fmt, future::Future, io, net::IpAddr, pin::Pin};

/// Most addresses of one name that are looked at.
const ADDRESSES_MAX: usize = 16;

/// The addresses to come.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;

/// Something that knows names.
pub trait Resolve: fmt::Debug + Send + Sync {
    /// Every address of a name; an error, or none, when there is no such name.
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a>;
}

/// The system's resolver: its hosts file, its name servers.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.map(|a| a.ip()).collect()) })
    }
}

/// Why a name leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// Every address of it is forbidden.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It could not be resolved.
    #[error("resolve the name {host}")]
    Failed {
        /// The name that was asked for.
        host: String,
        /// The system resolver's answer.
        source: io::Error,
    },
}

/// The addresses of `host` that may be called: at least one.
///
/// # Errors
/// [`ResolveError::Refused`] with the first refusal when none may.
pub(crate) async fn allowed_addresses(
    policy: &Policy,
    resolver: &dyn Resolve,
    host: &str,
) -> Result<Vec<IpAddr>, ResolveError> {
    let failed = |source| ResolveError::Failed { host: host.to_owned(), source };
    let found = resolver.resolve(host).await.map_err(failed)?;
    let good = allowed(policy, host, found)?;
    if good.is_empty() {
        Err(failed(io::Error::new(io::ErrorKind::NotFound, "the name has no address")))
    } else {
        Ok(good)
    }
}

/// The addresses that may be called; when none may, the first refusal.
fn allowed(policy: &Policy, host: &str, found: Vec<IpAddr>) -> Result<Vec<IpAddr>, Refusal> {
    let (mut good, mut refused) = (Vec::new(), None);
    for address in found.into_iter().take(ADDRESSES_MAX) {
        match policy.check_ip(address, host) {
            Ok(()) => good.push(address),
            Err(refusal) => refused = refused.or(Some(refusal)),
        }
    }
    match refused {
        Some(refusal) if good.is_empty() => Err(refusal),
        _ => Ok(good),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(entries: &[&str]) -> Policy {
        Policy::from_entries(entries.iter().copied()).0
    }

    #[test]
    fn of_several_addresses_only_the_allowed_are_used() {
        let found: Vec<IpAddr> = ["10.0.0.1", "1.1.1.1"].map(|a| a.parse().unwrap()).into();
        let good = allowed(&policy(&[]), "a.example", found.clone()).unwrap();
        assert_eq!(good, ["1.1.1.1".parse::<IpAddr>().unwrap()]);
        assert!(allowed(&policy(&[]), "a.example", found[..1].to_vec()).is_err());
    }

    #[tokio::test]
    async fn a_name_without_addresses_is_a_failure_and_no_refusal() {
        #[derive(Debug)]
        struct Nothing;
        impl Resolve for Nothing {
            fn resolve<'a>(&'a self, _: &'a str) -> Resolving<'a> {
                Box::pin(async { Ok(Vec::new()) })
            }
        }
        let error = allowed_addresses(&policy(&[]), &Nothing, "a.example").await.unwrap_err();
        assert!(matches!(error, ResolveError::Failed { .. }), "{error}");
    }
}
