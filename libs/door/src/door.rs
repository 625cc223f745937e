//! The door itself: one question a request, and the upkeep behind it.

use crate::{
    config::DoorConfig,
    console::ConsoleKeys,
    issuers::Issuers,
    logins::Logins,
    metrics,
    rates::Rates,
    shown::Shown,
    watch::{Watched, report},
};
use agentforge_access::{
    Denied, Disagreement, Guard, JwtFault, Keyring, Principal, Role, forwarded, is_of_foreign_page, now, reported,
};
use agentforge_egress::Net;
use http::{HeaderMap, HeaderName};
use std::{
    borrow::Cow,
    net::{IpAddr, Ipv6Addr},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Failed logins that are logged in a second; the others are counted.
const LINES_A_SECOND: u32 = 10;
/// Between two clean-ups of the limits.
const UPKEEP: Duration = Duration::from_secs(10);

/// Lets callers in. Cheap to clone; all clones are the same door.
#[derive(Clone)]
pub struct Door(Arc<Inner>);

struct Inner {
    guard: Guard,
    file: Option<PathBuf>,
    console: Option<ConsoleKeys>,
    reload_interval: Duration,
    trusted_proxies: Vec<Net>,
    certificate_header: Option<HeaderName>,
    rates: Rates,
    logins: Mutex<Logins>,
    lines: Mutex<Lines>,
    issuers: Issuers,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("guard", &self.0.guard).finish_non_exhaustive()
    }
}

/// Whether a key that is not known is asked for yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Try {
    First,
    Last,
}

/// Why a request was not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its credential does not do.
    #[error("the credential is not accepted ({})", .0.as_str())]
    Denied(Denied),
    /// No tokens are asked for, and it came through a proxy.
    #[error("without tokens requests through a proxy (Forwarded, X-Forwarded-*) are refused")]
    Proxy,
    /// Its address had too many failed logins. Come back after this long.
    #[error("too many failed logins from this address (ACCESS_LOCKOUT_AFTER)")]
    LockedOut(Duration),
    /// Its caller makes too many requests. Come back after this long.
    #[error("too many requests of this caller (ACCESS_CALLER_RATE)")]
    CallerRate(Duration),
    /// Its address makes too many requests. Come back after this long.
    #[error("too many requests from this address (ACCESS_ADDRESS_RATE)")]
    AddressRate(Duration),
}

impl Refusal {
    /// The reason in a word, as the metric has it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Denied(denied) => denied.as_str(),
            Self::Proxy => "proxy",
            Self::LockedOut(_) => "locked_out",
            Self::CallerRate(_) => "caller_rate",
            Self::AddressRate(_) => "address_rate",
        }
    }

    /// How long to wait, in whole seconds as `Retry-After` has them, where waiting helps.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::LockedOut(wait) | Self::CallerRate(wait) | Self::AddressRate(wait) => {
                Some(Duration::from_secs(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)))
            }
            Self::Denied(_) | Self::Proxy => None,
        }
    }
}

impl Door {
    /// A door with these settings.
    pub fn new(config: DoorConfig) -> Self {
        let keyring = if let Guard::Keyring(keyring) = &config.guard { keyring.clone() } else { Keyring::default() };
        Self(Arc::new(Inner {
            issuers: Issuers::new(keyring),
            guard: config.guard,
            file: config.file,
            console: config.console,
            reload_interval: config.reload_interval,
            trusted_proxies: config.trusted_proxies,
            certificate_header: config.certificate_header,
            rates: Rates::new(config.caller_rate, config.address_rate),
            logins: Mutex::new(Logins::new(config.lockout_after)),
            lines: Mutex::default(),
        }))
    }

    /// Whether nothing is asked of callers.
    pub fn is_open(&self) -> bool {
        self.0.guard.is_open()
    }

    /// Whose limits a request is under: those of its address, or of its network where one customer gets a whole one.
    pub fn address(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> IpAddr {
        // Without a peer, as in tests of a router, all share one.
        forwarded::household(self.client(peer.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)), headers))
    }

    /// The address that a request comes from: the peer's, or what a trusted proxy says.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        forwarded::address(peer, headers, |address| self.trusts(address))
    }

    /// Whether the headers of this peer are believed.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.0.trusted_proxies.iter().any(|net| net.contains(peer))
    }

    /// Lets a request in that may do what `needed` allows, and says who makes it.
    ///
    /// # Errors
    /// Why it is not let in; counted, and logged where a login failed.
    pub async fn admit(&self, shown: &Shown<'_>, needed: Role) -> Result<Principal, Refusal> {
        let mut admitted = self.admit_at(shown, needed, Instant::now(), Try::First);
        if admitted == Err(Refusal::Denied(Denied::Jwt(JwtFault::Key))) {
            // The issuer may have a new key. How often it is asked does not depend on callers.
            self.0.issuers.unknown_key().await;
            admitted = self.admit_at(shown, needed, Instant::now(), Try::Last);
        }
        admitted.inspect_err(|refusal| metrics::REFUSED.inc(&[refusal.as_str()]))
    }

    /// The same for what needs no credential: `None` for a caller that shows none, whose address has a rate all the same.
    ///
    /// # Errors
    /// Why what it shows is not accepted, or for how long it has to wait.
    pub async fn recognise(&self, shown: &Shown<'_>, needed: Role) -> Result<Option<Principal>, Refusal> {
        if shown.tokens.is_empty() {
            return match self.admit_at(shown, needed, Instant::now(), Try::Last) {
                Ok(principal) => Ok(Some(principal)),
                Err(Refusal::Denied(Denied::Missing | Denied::Closed)) => Ok(None),
                Err(refusal) => {
                    metrics::REFUSED.inc(&[refusal.as_str()]);
                    Err(refusal)
                }
            };
        }
        self.admit(shown, needed).await.map(Some)
    }

    /// The names of the certificate that a request comes with. A browser shows its certificate for every page, so that of
    /// another origin's page says nothing.
    fn certificate(&self, shown: &Shown<'_>) -> Result<Cow<'_, [String]>, Denied> {
        if !shown.tokens.is_empty() || is_of_foreign_page(shown.headers) {
            return Ok(Cow::Borrowed(&[]));
        }
        // The certificate of a proxy's own connection is not its callers'.
        if shown.peer.is_some_and(|peer| self.trusts(peer)) {
            let Some(header) = &self.0.certificate_header else { return Ok(Cow::Borrowed(&[])) };
            let name = reported(shown.headers, header).map_err(|Disagreement| Denied::Certificate)?;
            return Ok(Cow::Owned(name.into_iter().collect()));
        }
        Ok(Cow::Owned(shown.certificate.to_vec()))
    }

    fn admit_at(&self, shown: &Shown<'_>, needed: Role, at: Instant, attempt: Try) -> Result<Principal, Refusal> {
        if self.is_open() {
            if forwarded::is_forwarded(shown.headers) {
                return Err(Refusal::Proxy);
            }
            let of_console = self.of_console(shown, needed).unwrap_or_else(|| Ok(Principal::anyone()));
            return of_console.map_err(Refusal::Denied);
        }
        let address = self.address(shown.peer, shown.headers);
        self.0.rates.address(address).map_err(Refusal::AddressRate)?;
        let checked = self.of_console(shown, needed).unwrap_or_else(|| {
            let names = self.certificate(shown)?;
            self.0.guard.check_shown(&shown.tokens, &names, needed, now())
        });
        let principal = match &checked {
            Ok(principal) | Err(Denied::Role(principal)) => principal,
            Err(denied) => return Err(self.denied(denied, address, at, attempt)),
        };
        self.logins().admit(address, &principal.name, at).map_err(Refusal::LockedOut)?;
        self.0.rates.caller(&principal.name).map_err(Refusal::CallerRate)?;
        checked.map_err(Refusal::Denied)
    }

    /// A user of the console, where callers need no token. What has another issuer's form is not the console's.
    fn of_console(&self, shown: &Shown<'_>, needed: Role) -> Option<Result<Principal, Denied>> {
        let guard = self.0.console.as_ref()?.apart()?;
        match guard.check_tokens(&shown.tokens, needed, now()) {
            Err(Denied::Missing | Denied::Unknown | Denied::Jwt(JwtFault::Issuer | JwtFault::Malformed)) => None,
            checked => Some(checked),
        }
    }

    fn denied(&self, denied: &Denied, address: IpAddr, at: Instant, attempt: Try) -> Refusal {
        let was_locked = self.logins().locked(address, at);
        // A key that is not known may be a new one: not a failure yet.
        let is_open = attempt == Try::First && *denied == Denied::Jwt(JwtFault::Key) && was_locked.is_none();
        if !denied.is_failed_login() || is_open {
            return Refusal::Denied(denied.clone());
        }
        let pause = self.logins().fail(address, at);
        let reason = denied.as_str();
        let name = if let Denied::Expired(name) = denied { name } else { "" };
        let (is_logged, left_out) = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner).take(at);
        if left_out > 0 {
            warn!(left_out, "failed logins were not logged, there were too many");
        }
        if is_logged {
            let locked_seconds = pause.unwrap_or_default().as_secs();
            warn!(%address, reason, token = name, locked_seconds, "login failed");
        }
        // The failure that begins a pause is answered as what it is.
        was_locked.map_or_else(|| Refusal::Denied(denied.clone()), Refusal::LockedOut)
    }

    fn logins(&self) -> MutexGuard<'_, Logins> {
        self.0.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the files of tokens and of the console's keys again when they change, fetches keys of issuers, and cleans up,
    /// until the stop.
    pub async fn keep(self, stop: CancellationToken) {
        let console = self.clone().keep_console(stop.clone());
        tokio::join!(console, self.keep_tokens(stop));
    }

    async fn keep_console(self, stop: CancellationToken) {
        let Some(console) = self.0.console.clone() else { return };
        let mut told = String::new();
        loop {
            let keys = console.clone();
            let looked = tokio::task::spawn_blocking(move || {
                keys.look(&mut told);
                told
            });
            let Ok(said) = looked.await else { return };
            told = said;
            tokio::select! {
                () = tokio::time::sleep(self.0.reload_interval.min(UPKEEP)) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn keep_tokens(self, stop: CancellationToken) {
        let Guard::Keyring(keyring) = self.0.guard.clone() else { return stop.cancelled().await };
        let mut watched = self.0.file.clone().map(|path| Watched::new(path, keyring.clone()));
        let mut cleaned = Instant::now();
        // Apart from the file: an issuer that does not answer delays no change of it.
        let issuers = async {
            while !self.0.issuers.is_empty() {
                self.0.issuers.refresh().await;
                tokio::time::sleep(UPKEEP).await;
            }
            std::future::pending::<()>().await;
        };
        let mut issuers = std::pin::pin!(issuers);
        loop {
            watched = match watched {
                Some(mut file) => {
                    let looked = tokio::task::spawn_blocking(move || (file.look(), file)).await;
                    let Ok((look, file)) = looked else { return };
                    report(look);
                    Some(file)
                }
                None => None,
            };
            let moment = now();
            let ends = keyring.tokens();
            if let Some(next) = ends.expiries().map(|(_, end)| end).filter(|end| *end > moment).min() {
                metrics::NEXT_EXPIRY.set(&[], next as f64);
            }
            if cleaned.elapsed() >= UPKEEP {
                self.0.rates.upkeep();
                cleaned = Instant::now();
            }
            metrics::LOCKED.set(&[], self.logins().locked_count(Instant::now()) as f64);
            tokio::select! {
                () = tokio::time::sleep(self.0.reload_interval.min(UPKEEP)) => {}
                () = issuers.as_mut() => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

/// How many lines this second has had.
#[derive(Debug, Default)]
struct Lines {
    since: Option<Instant>,
    count: u32,
}

impl Lines {
    /// Whether one more line may be written, and how many were left out in the second that is over.
    fn take(&mut self, at: Instant) -> (bool, u32) {
        let mut left_out = 0;
        if self.since.is_none_or(|since| at.duration_since(since) >= Duration::from_secs(1)) {
            left_out = self.count.saturating_sub(LINES_A_SECOND);
            *self = Self { since: Some(at), count: 0 };
        }
        self.count = self.count.saturating_add(1);
        (self.count <= LINES_A_SECOND, left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentforge_access::{TokenFile, Tokens};
    use http::HeaderValue;

    const TOKEN: &str = "0123456789abcdef";

    fn door(config: DoorConfig) -> Door {
        let keyring = Keyring::new(Tokens::parse(&format!("ci:submitter:{TOKEN}").into()).unwrap(), Vec::new());
        Door::new(DoorConfig { guard: Guard::Keyring(keyring), ..config })
    }

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (k.parse::<HeaderName>().unwrap(), HeaderValue::from_str(v).unwrap())).collect()
    }

    #[test]
    fn an_open_door_does_not_answer_a_proxy() {
        let (open, at) = (Door::new(DoorConfig::open()), Instant::now());
        assert!(open.admit_at(&Shown::new(None, &headers(&[])), Role::Admin, at, Try::Last).is_ok());
        for name in ["x-forwarded-for", "forwarded", "x-forwarded-proto"] {
            let through = headers(&[(name, "203.0.113.9")]);
            assert_eq!(
                open.admit_at(&Shown::new(None, &through), Role::Read, at, Try::Last),
                Err(Refusal::Proxy),
                "{name}"
            );
            let bearer = headers(&[(name, "203.0.113.9"), ("authorization", &format!("Bearer {TOKEN}"))]);
            assert!(
                door(DoorConfig::open()).admit_at(&Shown::new(None, &bearer), Role::Read, at, Try::Last).is_ok(),
                "{name}"
            );
        }
    }

    #[test]
    fn after_failures_an_address_waits_and_a_proxy_speaks_for_others_only_if_trusted() {
        let door = door(DoorConfig {
            lockout_after: 2,
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
            ..DoorConfig::open()
        });
        let (at, peer) = (Instant::now(), Some("10.0.0.1".parse().unwrap()));
        let ask = |token: &str, from: &str, at| {
            let given = headers(&[("authorization", &format!("Bearer {token}")), ("x-forwarded-for", from)]);
            door.admit_at(&Shown::new(peer, &given), Role::Read, at, Try::Last).map(|p| p.name.to_string())
        };
        for _ in 0..2 {
            assert_eq!(ask("wrong-wrong-wrong", "203.0.113.9", at), Err(Refusal::Denied(Denied::Unknown)));
        }
        let locked = ask("wrong-wrong-wrong", "203.0.113.9", at).unwrap_err();
        assert_eq!((locked.as_str(), locked.retry_after()), ("locked_out", Some(Duration::from_secs(1))));
        assert_eq!(ask(TOKEN, "203.0.113.9", at).unwrap_err().as_str(), "locked_out", "a right one waits too");
        assert_eq!(ask(TOKEN, "203.0.113.10", at).unwrap(), "ci", "another address behind the proxy does not");
        assert_eq!(ask(TOKEN, "203.0.113.9", at + Duration::from_secs(1)).unwrap(), "ci");
        let behind = headers(&[("x-forwarded-for", "2001:db8::7")]);
        assert_eq!(door.client("10.0.0.1".parse().unwrap(), &behind).to_string(), "2001:db8::7");
        assert_eq!(door.address(peer, &behind).to_string(), "2001:db8::", "limits are those of the network");
        // A stranger's own header moves it nowhere.
        let stranger: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(door.address(Some(stranger), &headers(&[("x-forwarded-for", "203.0.113.9")])), stranger);
    }

    #[test]
    fn a_certificate_comes_from_the_connection_or_by_the_header_of_a_trusted_proxy() {
        const NAMED: &str = "x-client-name";
        let keyring = Keyring::new(Tokens::parse(&format!("dash:viewer:{TOKEN}").into()).unwrap(), Vec::new());
        let file = TokenFile::parse("ci submitter cert:ci.example\nproxy admin cert:proxy.example").unwrap();
        keyring.replace(&file).unwrap();
        let door = Door::new(DoorConfig {
            guard: Guard::Keyring(keyring),
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
            certificate_header: Some(HeaderName::from_static(NAMED)),
            ..DoorConfig::open()
        });
        let ask = |peer: &str, own: &str, given: &[(&str, &str)]| {
            let (given, own) = (headers(given), [own.to_owned()]);
            let shown = Shown::new(Some(peer.parse().unwrap()), &given).with_certificate(&own);
            let admitted = door.admit_at(&shown, Role::Read, Instant::now(), Try::Last);
            admitted.map(|p| p.name.to_string()).map_err(|refusal| refusal.as_str())
        };
        let (proxy, stranger, lie) = ("10.0.0.1", "192.0.2.1", (NAMED, "ci.example"));
        assert_eq!(ask(stranger, "ci.example", &[]), Ok("ci".to_owned()));
        assert_eq!(ask(stranger, "other.example", &[]), Err("missing"));
        assert_eq!(ask(proxy, "proxy.example", &[lie]), Ok("ci".to_owned()));
        assert_eq!(ask(stranger, "other.example", &[lie]), Err("missing"), "a stranger's header is not read");
        assert_eq!(ask(proxy, "proxy.example", &[]), Err("missing"), "the proxy does not lend its own");
        assert_eq!(ask(proxy, "", &[lie, ("ssl-client-verify", "FAILED")]), Err("certificate"));
        assert_eq!(ask(stranger, "ci.example", &[("sec-fetch-site", "cross-site")]), Err("missing"));
        let bearer = ("authorization", &*format!("Bearer {TOKEN}"));
        assert_eq!(ask(stranger, "ci.example", &[bearer]), Ok("dash".to_owned()));
    }

    #[test]
    fn callers_and_addresses_have_rates() {
        let door = door(DoorConfig { caller_rate: 1, address_rate: 3, ..DoorConfig::open() });
        let (at, bearer) = (Instant::now(), headers(&[("authorization", &format!("Bearer {TOKEN}"))]));
        let ask =
            |from: &str| door.admit_at(&Shown::new(Some(from.parse().unwrap()), &bearer), Role::Read, at, Try::Last);
        assert!(ask("192.0.2.1").is_ok() && ask("192.0.2.2").is_ok());
        let refused = ask("192.0.2.3").unwrap_err();
        assert_eq!((refused.as_str(), refused.retry_after()), ("caller_rate", Some(Duration::from_secs(1))));
        let nobody = |n: u32| {
            door.admit_at(&Shown::new(Some("192.0.2.9".parse().unwrap()), &headers(&[])), Role::Read, at, Try::Last)
                .map_err(|e| (n, e.as_str()))
        };
        assert_eq!((1..=6).map(|n| nobody(n).unwrap_err().1).collect::<Vec<_>>(), ["missing"; 6]);
        assert_eq!(nobody(7), Err((7, "address_rate")));
    }

    #[test]
    fn lines_about_failures_have_a_bound() {
        let (start, mut lines) = (Instant::now(), Lines::default());
        let written = (0..100).filter(|_| lines.take(start).0).count();
        assert_eq!(written, LINES_A_SECOND as usize);
        assert_eq!(lines.take(start + Duration::from_secs(1)), (true, 90));
        assert_eq!(lines.take(start + Duration::from_secs(2)), (true, 0));
    }
}
