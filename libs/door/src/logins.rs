//! Failed logins of each address, and the pauses that follow them. Pure; both tables are bounded.
//!
//! An address with too many failures is locked for a pause that doubles with each further one. Meanwhile nothing new is
//! let in from it, a right guess included. Callers who were let in from it before are not locked out: behind one address
//! may be a whole office, or a gateway that TRUSTED_PROXIES does not name.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

/// The first pause.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// An address is forgotten after this long without a failure. Longer than the longest pause.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(900);
/// A caller has been let in before if it was so recently.
const KNOWN_FOR: Duration = Duration::from_secs(3600);
/// Addresses, and callers, that are remembered. About 1 MiB each.
const ENTRIES_MAX: usize = 10_000;

/// Failed logins by address, or by something else that is locked, such as a user.
#[derive(Debug)]
pub struct Logins<K = IpAddr> {
    /// Failures before the first pause; 0 locks nothing.
    after: u32,
    failures: HashMap<K, Failures>,
    known: HashMap<(K, Arc<str>), Instant>,
}

#[derive(Debug)]
struct Failures {
    count: u32,
    last: Instant,
    locked_until: Option<Instant>,
}

impl<K: Hash + Eq + Copy> Logins<K> {
    /// With the number of failures before the first pause; 0 locks nothing.
    pub fn new(after: u32) -> Self {
        Self { after, failures: HashMap::new(), known: HashMap::new() }
    }

    /// Whether a caller whose token is right may come in from this address.
    ///
    /// # Errors
    /// How long it has to wait.
    pub fn admit(&mut self, address: K, name: &Arc<str>, now: Instant) -> Result<(), Duration> {
        let key = (address, name.clone());
        if let Some(seen) = self.known.get_mut(&key).filter(|seen| now.duration_since(**seen) < KNOWN_FOR) {
            *seen = now;
            return Ok(());
        }
        if let Some(wait) = self.locked(address, now) {
            return Err(wait);
        }
        make_room(&mut self.known, |seen| now.duration_since(*seen) < KNOWN_FOR);
        if self.known.len() < ENTRIES_MAX {
            self.known.insert(key, now);
        }
        Ok(())
    }

    /// Whether this caller was let in from here before.
    pub fn is_known(&self, address: K, name: &Arc<str>, now: Instant) -> bool {
        self.known.get(&(address, name.clone())).is_some_and(|seen| now.duration_since(*seen) < KNOWN_FOR)
    }

    /// Notes a failed login. How long the address is locked, if it was or is now.
    pub fn fail(&mut self, address: K, now: Instant) -> Option<Duration> {
        if self.after == 0 {
            return None;
        }
        if let Some(wait) = self.locked(address, now) {
            return Some(wait);
        }
        if !self.failures.contains_key(&address) {
            make_room(&mut self.failures, |entry| now.duration_since(entry.last) < FORGOTTEN_AFTER);
            if self.failures.len() >= ENTRIES_MAX {
                self.forget_one();
            }
        }
        let entry = self.failures.entry(address).or_insert(Failures { count: 0, last: now, locked_until: None });
        if now.duration_since(entry.last) >= FORGOTTEN_AFTER {
            entry.count = 0;
        }
        (entry.count, entry.last) = (entry.count.saturating_add(1), now);
        let beyond = entry.count.checked_sub(self.after)?;
        let pause = PAUSE_MIN.saturating_mul(1 << beyond.min(16)).min(PAUSE_MAX);
        entry.locked_until = Some(now + pause);
        Some(pause)
    }

    /// How long the address is still locked.
    pub fn locked(&self, address: K, now: Instant) -> Option<Duration> {
        let until = self.failures.get(&address)?.locked_until?;
        until.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// Addresses that are locked now.
    pub fn locked_count(&self, now: Instant) -> usize {
        self.failures.values().filter(|entry| entry.locked_until.is_some_and(|until| until > now)).count()
    }

    /// Where all places are taken by recent failures: the one with the fewest, and of those the oldest.
    fn forget_one(&mut self) {
        let weakest =
            self.failures.iter().min_by_key(|(_, entry)| (entry.count, entry.last)).map(|(address, _)| *address);
        if let Some(address) = weakest {
            self.failures.remove(&address);
        }
    }
}

/// Drops what is too old once all places are taken.
fn make_room<K: Hash + Eq, V>(entries: &mut HashMap<K, V>, is_fresh: impl Fn(&V) -> bool) {
    if entries.len() >= ENTRIES_MAX {
        entries.retain(|_, entry| is_fresh(entry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(n))
    }

    #[test]
    fn pauses_grow_with_each_failure_and_end() {
        let (start, mut logins) = (Instant::now(), Logins::new(3));
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!([logins.fail(address(1), at(0)), logins.fail(address(1), at(0))], [None, None]);
        assert_eq!(logins.fail(address(1), at(0)), Some(Duration::from_secs(1)));
        // What comes in the pause does not lengthen it.
        assert!(logins.fail(address(1), at(0)).is_some() && logins.locked(address(1), at(1)).is_none());
        assert_eq!(logins.fail(address(1), at(1)), Some(Duration::from_secs(2)));
        assert_eq!(logins.fail(address(1), at(3)), Some(Duration::from_secs(4)));
        assert_eq!((logins.locked_count(at(4)), logins.locked_count(at(7))), (1, 0));
        let mut now = 7;
        for _ in 0..20 {
            now += logins.fail(address(1), at(now)).unwrap().as_secs();
        }
        assert_eq!(logins.fail(address(1), at(now)), Some(PAUSE_MAX));
        assert_eq!(logins.fail(address(2), at(now)), None, "others have their own count");
        assert_eq!(logins.fail(address(1), at(now + 900)), None, "after a while it is forgotten");
        assert!((0..100).all(|_| Logins::new(0).fail(address(1), start).is_none()), "0 locks nothing");
    }

    #[test]
    fn a_locked_address_lets_in_who_was_let_in_before_and_no_guess() {
        let (now, mut logins, [old, new]) = (Instant::now(), Logins::new(1), ["old", "new"].map(Arc::<str>::from));
        logins.admit(address(1), &old, now).unwrap();
        assert!(logins.fail(address(1), now).is_some());
        assert!(logins.admit(address(1), &old, now).is_ok());
        assert!(logins.admit(address(1), &new, now).is_err(), "a right guess has to wait too");
        assert!(logins.admit(address(2), &new, now).is_ok());
        assert!(logins.admit(address(1), &new, now + Duration::from_secs(1)).is_ok());
    }

    #[test]
    fn the_tables_have_an_end_and_keep_the_worst() {
        let (now, mut logins) = (Instant::now(), Logins::new(2));
        let worst = address(u32::MAX);
        assert!(logins.fail(worst, now).is_none() && logins.fail(worst, now).is_some());
        for n in 0..ENTRIES_MAX as u32 + 100 {
            logins.fail(address(n), now);
            logins.admit(address(n), &"a".into(), now).unwrap();
        }
        assert!(logins.failures.len() <= ENTRIES_MAX && logins.known.len() <= ENTRIES_MAX);
        assert!(logins.locked(worst, now).is_some());
    }
}
