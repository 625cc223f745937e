//! Who may read evidence at once: so many in all, and no address more than its share of what is free.
//!
//! A [`ReadSlot`] is freed when it is dropped. An address gets one as long as it holds fewer than are free, so that a
//! single address can have half of them, and another always finds some.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// Answers that are read at once. Each holds a few chunks, about a third of a megabyte.
const PLACES: usize = 256;

/// The places of a process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct ReadSlots(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl ReadSlots {
    /// Takes a place; `None` when this address has its share.
    pub fn take(&self, address: IpAddr) -> Option<ReadSlot> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let free = PLACES - taken.all;
        if taken.by_address.get(&address).copied().unwrap_or_default() >= free {
            return None;
        }
        *taken.by_address.entry(address).or_default() += 1;
        taken.all += 1;
        drop(taken);
        Some(ReadSlot { slots: self.clone(), address })
    }
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub struct ReadSlot {
    slots: ReadSlots,
    address: IpAddr,
}

impl Drop for ReadSlot {
    fn drop(&mut self) {
        let mut taken = self.slots.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(here) = taken.by_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_leaves_half_to_the_others_and_all_come_back() {
        let places = ReadSlots::default();
        let fill = |last: u8| -> Vec<ReadSlot> {
            let address = IpAddr::from([10, 0, 0, last]);
            std::iter::from_fn(|| places.take(address)).collect()
        };
        let first = fill(1);
        assert_eq!(first.len(), PLACES / 2);
        let second = fill(2);
        assert_eq!(second.len(), PLACES / 4);
        assert!(!fill(3).is_empty());
        drop((first, second));
        assert_eq!(fill(4).len(), PLACES / 2);
        let taken = places.0.lock().unwrap();
        assert!(taken.all == 0 && taken.by_address.is_empty(), "{taken:?}");
    }
}
