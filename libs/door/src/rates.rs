//! Requests per second of each caller and of each address.
//!
//! Keys that are not limited any more are dropped on a timer ([`Rates::upkeep`]). Where too many are in use between two
//! of them, new ones share a place: memory has a bound, and a flood from many addresses limits itself.

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter, clock::Clock};
use std::{
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

/// Keys that have a place of their own. About 10 MiB.
const KEYS_MAX: usize = 100_000;

/// The limits; `None` limits nothing.
pub struct Rates {
    callers: Option<Limiter<Arc<str>>>,
    addresses: Option<Limiter<IpAddr>>,
}

struct Limiter<K: Hash + Eq + Clone> {
    keys: DefaultKeyedRateLimiter<K>,
    /// Where those go for whom there is no place.
    shared: K,
}

impl Rates {
    /// Requests per second; twice as many may come at once. 0 limits nothing.
    pub fn new(per_caller: u32, per_address: u32) -> Self {
        Self {
            callers: Limiter::new(per_caller, "".into()),
            addresses: Limiter::new(per_address, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        }
    }

    /// Counts a request of an address.
    ///
    /// # Errors
    /// How long it has to wait.
    pub fn address(&self, address: IpAddr) -> Result<(), Duration> {
        self.addresses.as_ref().map_or(Ok(()), |limiter| limiter.check(&address))
    }

    /// Counts a request of a caller.
    ///
    /// # Errors
    /// How long it has to wait.
    pub fn caller(&self, name: &Arc<str>) -> Result<(), Duration> {
        self.callers.as_ref().map_or(Ok(()), |limiter| limiter.check(name))
    }

    /// Drops those who have nothing to wait for. To be called every few seconds.
    pub fn upkeep(&self) {
        if let Some(limiter) = &self.callers {
            limiter.upkeep();
        }
        if let Some(limiter) = &self.addresses {
            limiter.upkeep();
        }
    }
}

impl<K: Hash + Eq + Clone> Limiter<K> {
    fn new(per_second: u32, shared: K) -> Option<Self> {
        let rate = NonZeroU32::new(per_second)?;
        let quota = Quota::per_second(rate).allow_burst(rate.saturating_mul(NonZeroU32::MIN.saturating_add(1)));
        Some(Self { keys: RateLimiter::keyed(quota), shared })
    }

    fn check(&self, key: &K) -> Result<(), Duration> {
        let key = if self.keys.len() < KEYS_MAX { key } else { &self.shared };
        self.keys.check_key(key).map_err(|until| until.wait_time_from(self.keys.clock().now()))
    }

    fn upkeep(&self) {
        self.keys.retain_recent();
        self.keys.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn each_has_its_own_rate_and_is_told_when_to_come_back() {
        let rates = Rates::new(2, 3);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        assert!((0..4).all(|_| rates.caller(&a).is_ok()), "twice the rate at once");
        let wait = rates.caller(&a).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(500), "{wait:?}");
        assert!(rates.caller(&b).is_ok());
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert!((0..6).all(|_| rates.address(address).is_ok()) && rates.address(address).is_err());
        let none = Rates::new(0, 0);
        assert!((0..1_000).all(|_| none.caller(&a).is_ok() && none.address(address).is_ok()));
    }

    #[test]
    fn a_flood_of_addresses_shares_a_place() {
        let rates = Rates::new(0, 1_000_000);
        for n in 0..KEYS_MAX as u32 + 1_000 {
            let _ = rates.address(IpAddr::V4(Ipv4Addr::from(n)));
        }
        assert!(rates.addresses.as_ref().unwrap().keys.len() <= KEYS_MAX + 1);
    }
}
