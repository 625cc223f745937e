//! Places for clients: so many in all, so many of one address, and none lost.
//!
//! A [`Slot`] is a place. It is given back when it is dropped, so a client that holds it needs no other
//! way out. Counting and comparing are one step, so the caps are exact however many come at once.

use crate::{event::Channel, metrics};
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitReached {
    /// All are taken.
    All,
    /// Those of this address are taken.
    Address,
}

/// The places of a process. Clones share them.
#[derive(Clone, Debug)]
pub struct Slots(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    max: usize,
    max_per_address: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Addresses with at least one; only kept where it is asked for.
    by_address: HashMap<IpAddr, usize>,
}

impl Slots {
    /// `max_per_address` 0 means no limit.
    pub fn new(max: usize, max_per_address: usize) -> Self {
        Self(Arc::new(Inner { max, max_per_address, taken: Mutex::default() }))
    }

    /// Takes a place.
    ///
    /// # Errors
    /// [`LimitReached`].
    pub fn take(&self, address: IpAddr, channel: Channel) -> Result<Slot, LimitReached> {
        let inner = &self.0;
        let mut taken = inner.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= inner.max {
            return Err(LimitReached::All);
        }
        if inner.max_per_address > 0 {
            let here = taken.by_address.entry(address).or_default();
            if *here >= inner.max_per_address {
                return Err(LimitReached::Address);
            }
            *here += 1;
        }
        taken.all += 1;
        drop(taken);
        metrics::clients(channel).increment(1.0);
        Ok(Slot { slots: self.clone(), address, channel })
    }

    /// Places taken now.
    #[cfg(test)]
    fn taken(&self) -> usize {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner).all
    }
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Slots,
    address: IpAddr,
    channel: Channel,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let inner = &self.slots.0;
        let mut taken = inner.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(here) = taken.by_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                taken.by_address.remove(&self.address);
            }
        }
        drop(taken);
        metrics::clients(self.channel).decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caps_are_exact_and_places_come_back() {
        let slots = Slots::new(3, 2);
        let (a, b): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let take = |address| slots.take(address, Channel::Sse);
        let (one, _two) = (take(a).unwrap(), take(a).unwrap());
        assert_eq!(take(a).unwrap_err(), LimitReached::Address);
        let three = take(b).unwrap();
        assert_eq!(take(b).unwrap_err(), LimitReached::All);
        drop(one);
        drop(three);
        assert_eq!(slots.taken(), 1);
        let _again = take(a).unwrap();
        assert_eq!(take(a).unwrap_err(), LimitReached::Address);
    }

    #[test]
    fn many_at_once_never_pass_the_cap() {
        let slots = Slots::new(100, 0);
        let address = "10.0.0.1".parse().unwrap();
        let held: Vec<_> = std::thread::scope(|scope| {
            let take = || (0..50).filter_map(|_| slots.take(address, Channel::Ws).ok()).collect::<Vec<_>>();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(take)).collect();
            threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
        });
        assert_eq!((held.len(), slots.taken()), (100, 100));
        drop(held);
        assert_eq!(slots.taken(), 0);
        assert!(slots.0.taken.lock().unwrap().by_address.is_empty());
    }
}
